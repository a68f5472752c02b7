"""Columns of a table that hold targets, numbers or splits: those of image files, and of series in long form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.raw_targets import RawTargets, holds_sequences
from ripieno.data.samples import UNASSIGNED
from ripieno.data.splits import splits_of
from ripieno.data.table_file import FileColumns, is_number
from ripieno.data.targets import infer_from_numbers, read_targets
from ripieno.errors import DataError
from ripieno.tasks.registry import TASKS
from ripieno.tasks.target_text import SEPARATOR
from ripieno.types import SPLITS, Task

SPLIT_COLUMN = "split"
GAPS = ("", None)
"""Values of a row without a target."""


def is_gap(value: Any) -> bool:
    """Return whether a row has no value: an empty text, None or NaN."""
    return value is None or (isinstance(value, str) and value in GAPS) or (isinstance(value, float) and value != value)


def number_column(read: FileColumns, name: str) -> NDArray[np.float64] | None:
    """Return a column as numbers, NaN where it has no value; None where it holds anything else."""
    values = ["nan" if is_gap(value) else value for value in read.columns[name]]
    if all(isinstance(value, str) for value in values):
        texts = [value.replace(",", ".") for value in values] if read.decimal_comma else values
        return np.array(texts, np.float64) if all(map(is_number, texts)) else None
    is_numeric = all(isinstance(value, int | float) or value == "nan" for value in values)
    return np.array([float(value) for value in values]) if is_numeric else None


def check_targets(
    targets: Mapping[str, Sequence[Any]], where: str, rows: Sequence[str], is_absent: Callable[[Any], bool]
) -> None:
    """Raise DataError naming the first row without a target; `targets` are the columns of targets by their names."""
    gaps = [(row, name) for name, values in targets.items() for row, value in enumerate(values) if is_absent(value)]
    if gaps:
        row, name = min(gaps)
        more = f" (so do {len(gaps) - 1:,} more)" if len(gaps) > 1 else ""
        raise DataError(f"{where} {rows[row]} has no {name}{more}; fill it or remove the row")


def read_target_columns(
    read: FileColumns,
    chosen: Sequence[str],
    where: str,
    rows: Sequence[str],
    task: str | None,
    notes: list[str],
) -> tuple[NDArray[Any], Task]:
    """Read the `chosen` columns as targets, and return them as in `Dataset`, with their task.

    `rows` name the rows in messages. Raises DataError, in one line, for columns that cannot be used.
    """
    values = [_column(read, name) for name in chosen]
    kind = _infer(where, chosen, values, rows) if task is None else task
    if task is None:
        held = f"column {chosen[0]!r}" if len(chosen) == 1 else f"columns {', '.join(map(repr, chosen))}"
        notes.append(f"{held} of {where}: read as {kind}; --task sets another kind")
    raw = RawTargets(_stacked(values, kind), where, rows)
    (targets,), made = read_targets([raw], None, notes, task=kind, columns=chosen)
    return targets, made


def read_split_column(
    where: str, values: Sequence[Any], rows: Sequence[str], for_training: bool = True
) -> NDArray[np.int8]:
    """Return `Samples.fixed_split` from a column of splits.

    Raises DataError for other words, and without train where the data are `for_training`.
    """
    words = splits_of(sorted({str(value) for value in values}))
    unknown = next((word for word, split in words.items() if split is None), None)
    if unknown is not None:
        row = rows[[str(value) for value in values].index(unknown)]
        raise DataError(f"{where} {row} has the split {unknown!r}; expected train, valid or test")
    if for_training and "train" not in words.values():
        raise DataError(f"{where} has no row of the split train; training samples are required")
    codes = {w: UNASSIGNED if split in (None, "train") else SPLITS.index(split) for w, split in words.items()}
    return np.array([codes[str(value)] for value in values], np.int8)


def _column(read: FileColumns, name: str) -> NDArray[Any]:
    """Return a column: as numbers where all values are numbers, else as text or objects."""
    values = read.columns[name]
    if all(isinstance(value, str) for value in values):
        texts = [value.replace(",", ".") for value in values] if read.decimal_comma else values
        return np.array([float(text) for text in texts]) if all(map(is_number, texts)) else np.array(values)
    if all(isinstance(value, int | float) for value in values):
        return np.array(values, np.float64)
    objects = np.empty(len(values), object)
    objects[:] = [tuple(value) if isinstance(value, list) else value for value in values]
    return objects


def _infer(where: str, names: Sequence[str], columns: Sequence[NDArray[Any]], rows: Sequence[str]) -> str:
    """Return the kind of task of columns of a file. Raises DataError where they leave it open."""
    numbers = [column.dtype.kind == "f" for column in columns]
    if len(columns) == 1:
        column, what = columns[0], f"column {names[0]!r} of {where}"
        if numbers[0]:
            return infer_from_numbers(column, what)
        if holds_sequences(column) or any(SEPARATOR in str(value) for value in column):
            return "multilabel"
        strange = [row for row, value in enumerate(column) if not is_number(str(value))]
        if 2 * len(strange) < len(column):
            value = f"{str(column[strange[0]])!r} ({rows[strange[0]]}) among numbers"
            raise DataError(f"{what} holds {value}; expected numbers only, or --task classification for names")
        return "classification"
    if all(numbers):
        if all(np.isin(column, (0, 1)).all() for column in columns):
            return "multilabel"
        if all((column != np.floor(column)).any() for column in columns):
            return "regression"
    listed = ", ".join(names)
    raise DataError(
        f"{where} has the columns {listed}; name the target with --target, or say what several are with --task "
        "multilabel or --task regression"
    )


def _stacked(columns: Sequence[NDArray[Any]], kind: str) -> NDArray[Any]:
    """Return the columns as one array; a single one of 0 and 1 stays a column, where labels have each its own."""
    if len(columns) == 1:
        is_flag = TASKS[kind].has_thresholds and columns[0].dtype.kind == "f" and np.isin(columns[0], (0, 1)).all()
        return columns[0][:, np.newaxis] if is_flag else columns[0]
    if any(column.dtype.kind != "f" for column in columns):
        objects = np.empty((len(columns[0]), len(columns)), object)
        for i, column in enumerate(columns):
            objects[:, i] = column
        return objects
    return np.stack(columns, axis=1)
