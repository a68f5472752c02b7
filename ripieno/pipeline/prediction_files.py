"""Files of predictions, written batch by batch: tables (.csv, .parquet) and arrays (.npy)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.errors import RipienoError, require
from ripieno.pipeline.prediction import PredictionBatch
from ripieno.pipeline.prediction_tables import TABLES
from ripieno.types import Bundle

AppendFunction = Callable[[PredictionBatch], None]
GROUP_VALUES = 1 << 20
"""Approximate number of values in a row group of a Parquet file: what is in memory at a time."""


def check_output(path: Path) -> None:
    """Raise RipienoError unless a file of predictions can be written to `path`; call it before the work."""
    if path.suffix.lower() not in WRITERS:
        raise RipienoError(f"cannot write predictions to {path}: its name must end in {', '.join(WRITERS)}")
    if path.is_dir():
        raise RipienoError(f"cannot write predictions to {path}: it is a folder, give a file")
    if path.suffix.lower() == ".parquet":
        require("pyarrow")
    files.check_file(path)


def prediction_writer(path: Path, bundle: Bundle) -> AbstractContextManager[AppendFunction]:
    """Write predictions of `bundle` to `path` in the form of its suffix: yield a function that appends a batch.

    A .csv or .parquet file is a table with the columns of `prediction_tables`; a .npy file holds the predictions alone,
    (samples, *task.output). The file is complete when the `with` block ends, and absent when it fails.
    """
    return WRITERS[path.suffix.lower()](path, bundle)


@contextmanager
def _csv_writer(path: Path, bundle: Bundle) -> Iterator[AppendFunction]:
    form, rows = TABLES[bundle.task.kind], 0

    def append(batch: PredictionBatch) -> None:
        nonlocal rows
        columns = form.columns(batch, bundle)
        if not rows:
            table.writerow([name for name, _ in columns])
        table.writerows(zip(*(_cells(values) for _, values in columns), strict=True))
        rows += len(batch.names)

    with files.file_writer(path) as stream:
        text = io.TextIOWrapper(stream, "utf-8", "backslashreplace", newline="")
        table = csv.writer(text, lineterminator="\n")
        try:
            yield append
        finally:
            text.detach()  # else it would close the stream


def _cells(values: Any) -> Iterator[str]:
    """Yield the cells of a column: numbers by the fewest digits that identify them in single precision."""
    return ("" if value is None else str(value) for value in values)


@contextmanager
def _parquet_writer(path: Path, bundle: Bundle) -> Iterator[AppendFunction]:
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    form, held, writer = TABLES[bundle.task.kind], [], None

    def append(batch: PredictionBatch) -> None:
        columns = form.columns(batch, bundle)
        arrays = [
            arrow.array(list(v), arrow.string() if isinstance(v[0], str) else arrow.float32()) for _, v in columns
        ]
        held.append(arrow.record_batch(arrays, names=[name for name, _ in columns]))
        if sum(len(part) for part in held) * len(columns) >= GROUP_VALUES:
            write()

    def write() -> None:
        nonlocal writer
        if held:
            group = arrow.Table.from_batches(held)
            writer = writer or parquet.ParquetWriter(stream, group.schema)
            writer.write_table(group, row_group_size=len(group))
            held.clear()

    with files.file_writer(path) as stream:
        yield append
        write()
        if writer is not None:
            writer.close()


@contextmanager
def _npy_writer(path: Path, bundle: Bundle) -> Iterator[AppendFunction]:
    with files.array_writer(path, bundle.task.output, "float32") as append:
        yield lambda batch: append(batch.predictions)


WRITERS: Mapping[str, Callable[[Path, Bundle], AbstractContextManager[AppendFunction]]] = {
    ".csv": _csv_writer,
    ".parquet": _parquet_writer,
    ".npy": _npy_writer,
}
"""Writer of a file of predictions, by suffix."""
