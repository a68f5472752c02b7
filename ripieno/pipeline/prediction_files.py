"""Files of predictions, written batch by batch: tables (.csv, .parquet), arrays (.npy), folders of masks."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.image_io import suffixes
from ripieno.data.mask_image import mask_png
from ripieno.errors import RipienoError, require
from ripieno.pipeline.mask_prediction import PredictedMask
from ripieno.pipeline.prediction import PredictionBatch
from ripieno.pipeline.prediction_tables import TABLES
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle, Task

AppendFunction = Callable[[PredictionBatch], None]
GROUP_VALUES = 1 << 20
"""Approximate number of values in a row group of a Parquet file: what is in memory at a time."""


def check_output(path: Path, task: Task, sources: Sequence[Path] = ()) -> None:
    """Raise RipienoError unless predictions of `task` can be written to `path`; call it before the work.

    A folder of masks must not be one of the `sources` that are predicted, nor within one, nor hold one.
    """
    if kind_of(task).is_pixelwise and not path.suffix:
        files.check_folder(path)
        _check_apart(path, sources)
        return
    if path.suffix.lower() not in WRITERS:
        or_folder = ", or have no suffix: a folder of masks" if kind_of(task).is_pixelwise else ""
        raise RipienoError(f"cannot write predictions to {path}: its name must end in {', '.join(WRITERS)}{or_folder}")
    if path.is_dir():
        raise RipienoError(f"cannot write predictions to {path}: it is a folder, give a file")
    if path.suffix.lower() == ".parquet":
        require("pyarrow")
    files.check_file(path)


def _check_apart(folder: Path, sources: Sequence[Path]) -> None:
    """Raise RipienoError where masks in `folder` could replace the pictures of `sources`, or be read as such."""
    target = folder.resolve()
    for source in sources:
        place = source.resolve()
        if place == target or target in place.parents or (place.is_dir() and place in target.parents):
            raise RipienoError(f"cannot write masks to {folder}: {source} is predicted; choose a folder outside of it")


def prediction_writer(path: Path, bundle: Bundle) -> AbstractContextManager[AppendFunction]:
    """Write predictions of `bundle` to `path` in the form of its suffix: yield a function that appends a batch.

    A .csv or .parquet file is a table with the columns of `prediction_tables`; a .npy file holds the predictions alone,
    (samples, *task.output), or of a segmentation the masks (samples, height, width). The file is complete when the
    `with` block ends, and absent when it fails. Without a suffix `path` is a folder of masks, each complete or absent.
    """
    if kind_of(bundle.task).is_pixelwise and path.suffix.lower() in MASK_WRITERS:
        return MASK_WRITERS[path.suffix.lower()](path)
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

    def column_type(name: str, values: Any) -> Any:
        """Return the type of a column by its values, of one without values by its name: a class may have any name."""
        kind = {"prediction_set": str, "abstain": bool}.get(name) if values[0] is None else type(values[0])
        if kind is not None and issubclass(kind, str):
            return arrow.string()
        return arrow.bool_() if kind in (bool, np.bool_) else arrow.float32()

    def append(batch: PredictionBatch) -> None:
        columns = form.columns(batch, bundle)
        arrays = [arrow.array(list(values), column_type(name, values)) for name, values in columns]
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


@contextmanager
def _mask_folder(path: Path) -> Iterator[AppendFunction]:
    """Write each mask as `PATH/NAME.png`, named as its picture.

    Of two with one stem the second keeps its suffix, and where that name is taken too, it gets a number.
    """
    written: set[Path] = set()

    def append(batch: PredictionBatch) -> None:
        assert isinstance(batch, PredictedMask)
        name = _relative(batch.names[0])
        target = name.with_suffix(".png") if name.suffix.lower() in suffixes() else name.with_name(f"{name.name}.png")
        if target in written:
            target = name.with_name(f"{name.name}.png")
        number = 2
        while target in written:
            target, number = name.with_name(f"{name.name}-{number}.png"), number + 1
        written.add(target)
        files.write_bytes(path / target, mask_png(batch.mask))

    yield append


def _relative(name: str) -> Path:
    """Return the name of a picture as a path below a folder: without a root, and without steps upwards."""
    parts = [part for part in Path(name).parts if part not in (Path(name).anchor, "..")]
    return Path(*parts) if parts else Path("mask")


@contextmanager
def _mask_array(path: Path) -> Iterator[AppendFunction]:
    """Write all masks as one array. Raises RipienoError for masks of several sizes."""
    first: tuple[str, tuple[int, ...]] | None = None
    add: Callable[[NDArray[np.uint8]], None] | None = None
    with ExitStack() as stack:

        def append(batch: PredictionBatch) -> None:
            nonlocal first, add
            assert isinstance(batch, PredictedMask)
            name, shape = batch.names[0], batch.mask.shape
            if first is None or add is None:
                first, add = (name, shape), stack.enter_context(files.array_writer(path, shape, "uint8"))
            if shape != first[1]:
                sizes = [f"{one} is {size[1]} x {size[0]} pixels" for one, size in (first, (name, shape))]
                raise RipienoError(
                    f"cannot write masks of several sizes to one array: {' and '.join(sizes)}; choose a folder"
                )
            add(batch.mask[np.newaxis])

        yield append


WRITERS: Mapping[str, Callable[[Path, Bundle], AbstractContextManager[AppendFunction]]] = {
    ".csv": _csv_writer,
    ".parquet": _parquet_writer,
    ".npy": _npy_writer,
}
"""Writer of a file of predictions, by suffix."""
MASK_WRITERS: Mapping[str, Callable[[Path], AbstractContextManager[AppendFunction]]] = {
    "": _mask_folder,
    ".npy": _mask_array,
}
"""Writer of masks, by suffix; tables are written as those of other tasks."""
