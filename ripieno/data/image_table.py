"""Tables of image files: a `.csv` or `.parquet` file, or a folder with a `labels.csv`.

    file,label           file,label              file,age,height        file,cat,dog,split
    a/1.png,cat          a/1.png,cat|outdoors    a/1.png,31.5,1.74      a/1.png,1,0,train

The first row names the columns. Paths are relative to the file's folder. The column of files is named `file`, `path`
or alike; an optional column `split` holds train, valid or test. All other columns are targets unless they are chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.data.label_targets import SEPARATOR
from ripieno.data.pictures import CountCallback, read_pictures
from ripieno.data.raw_targets import RawTargets, holds_sequences
from ripieno.data.samples import UNASSIGNED, Samples
from ripieno.data.splits import check_sizes, splits_of
from ripieno.data.table_file import TABLES, FileColumns, is_number, read_columns
from ripieno.data.targets import infer_from_numbers, read_targets
from ripieno.data.walk import shown
from ripieno.errors import DataError
from ripieno.tasks.registry import TASKS
from ripieno.types import SPLITS, Ints, Task

INSIDE = ("labels.csv", "labels.parquet")
"""Names of a table in an image folder."""
FILE_COLUMNS = ("file", "path", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file")
"""Names of the column of files, in lower case; the first that is there counts."""
SPLIT_COLUMN = "split"
GAPS = ("", None)
"""Values of a row without a target."""


def table_path(path: Path) -> Path | None:
    """Return the table of image files at `path`: itself, or the one inside a folder; None where there is none."""
    if path.is_dir():
        return next((path / name for name in INSIDE if (path / name).is_file()), None)
    return path if path.suffix.lower() in TABLES else None


def listed_files(table: Path) -> list[Path]:
    """Return the paths of all image files that a table names. Raises DataError as `read_image_table`."""
    columns = read_columns(table, DataError).columns
    return [table.parent / str(name) for name in columns[_file_column(table, columns)] if name not in GAPS]


class TableTargets(NamedTuple):
    """Content of a table, without the images."""

    paths: list[Path]
    """of the rows that are used"""
    targets: NDArray[Any]
    """of these rows, as in `Dataset`"""
    given: NDArray[np.int8]
    """of these rows, as in `Samples.fixed_split`"""
    task: Task


def read_image_table(
    table: Path,
    *,
    task: str | None,
    target: Sequence[str],
    size: int | None,
    skip_bad: bool,
    progress: CountCallback | None,
    notes: list[str],
    place: Path | None,
    for_training: bool = True,
) -> Samples:
    """Read the targets of a table, then its images; write these to the .npy file `place`, when given.

    Arguments are those of `load_dataset`. Raises DataError (one line) as `read_table_targets`, before an image is
    decoded, and as `read_pictures`.
    """
    found = read_table_targets(table, task, target, notes, skip_bad)

    def check(rows: Ints) -> None:
        check_sizes(found.targets[rows], found.given[rows], found.task, for_training)

    check(np.arange(len(found.paths)))
    images, rows = read_pictures(
        found.paths,
        shown(table),
        size=size,
        skip_bad=skip_bad,
        progress=progress,
        notes=notes,
        target=place,
        check=check,
    )
    name = table.resolve().parent.name if table.name in INSIDE else table.stem
    return Samples(shown(Path(name)), images, found.targets[rows], found.given[rows], found.task, "image")


def read_table_targets(
    table: Path, task: str | None, target: Sequence[str], notes: list[str], skip_bad: bool = False
) -> TableTargets:
    """Read files, targets and splits of a table.

    Raises DataError (one line) for a table without files or targets, a row without a target, targets that cannot be
    used, and files that do not exist unless `skip_bad`.
    """
    read = read_columns(table, DataError)
    columns, where = read.columns, shown(table)
    files = _file_column(table, columns)
    chosen = _target_columns(table, columns, files, target)
    gaps = [(row, name) for name in chosen for row, value in enumerate(columns[name]) if _is_gap(value)]
    if gaps:
        row, name = min(gaps)
        more = f" (so do {len(gaps) - 1:,} more)" if len(gaps) > 1 else ""
        raise DataError(f"{where} row {row + 2} has no {name}{more}; fill it or remove the row")
    paths, present = _paths(table, columns[files], skip_bad, notes)
    names = [f"row {row + 2}" for row in range(len(paths))]
    values = [_column(read, name) for name in chosen]
    kind = _infer(where, chosen, values, names) if task is None else task
    if task is None:
        held = f"column {chosen[0]!r}" if len(chosen) == 1 else f"columns {', '.join(map(repr, chosen))}"
        notes.append(f"{held} of {where}: read as {kind}; --task sets another kind")
    raw = RawTargets(_stacked(values, kind), where, names)
    (targets,), made = read_targets([raw], None, notes, task=kind, columns=chosen)
    return TableTargets([paths[row] for row in present], targets[present], _given(table, columns)[present], made)


def _file_column(table: Path, columns: dict[str, list[Any]]) -> str:
    lower = {name.lower(): name for name in columns}
    found = next((lower[name] for name in FILE_COLUMNS if name in lower), None)
    if found is None:
        have = ", ".join(columns)
        raise DataError(f"{shown(table)} has the columns {have}; expected one of image paths; name it file")
    return found


def _target_columns(table: Path, columns: dict[str, list[Any]], files: str, target: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of targets. Raises DataError for unknown ones, and where there are none."""
    unnamed = {name for name in columns if not name or name.startswith(("Unnamed:", "__index_level_"))}  # by pandas
    others = [name for name in columns if name not in unnamed | {files} and name.lower() != SPLIT_COLUMN]
    for name in target:
        if name not in columns or name == files:
            raise DataError(f"{shown(table)} has no target {name!r}; expected {', '.join(others) or 'a second column'}")
    if len(set(target)) < len(target):
        raise DataError(f"target names a column twice: {', '.join(target)}; name each once")
    if not others:
        raise DataError(f"{shown(table)} has no column of targets; expected file,label or file,target")
    return tuple(target) or tuple(others)


def _is_gap(value: Any) -> bool:
    """Return whether a row has no target: an empty text, no value or NaN."""
    return value is None or (isinstance(value, str) and value in GAPS) or (isinstance(value, float) and value != value)


def _paths(table: Path, names: Sequence[Any], skip_bad: bool, notes: list[str]) -> tuple[list[Path], NDArray[np.int64]]:
    """Return all paths, and the rows whose file exists.

    Raises DataError for files that are named twice, and for missing ones unless `skip_bad`.
    """
    empty = next((row for row, name in enumerate(names) if _is_gap(name)), None)
    if empty is not None:
        raise DataError(f"{shown(table)} row {empty + 2} names no file; fill it or remove the row")
    paths = [table.parent / str(name) for name in names]
    present = np.array([path.is_file() for path in paths])
    absent = np.flatnonzero(~present)
    if len(absent):
        first = f"the first: {shown(paths[absent[0]])} (row {absent[0] + 2})"
        line = f"{shown(table)} names {_missing_files(len(absent))}, {first}"
        if not skip_bad or not present.any():
            raise DataError(f"{line}; paths are relative to {shown(table.parent)}; skip these rows with --skip-bad")
        notes.append(f"{line}; skipped")
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if (before := rows.setdefault(str(name), row)) != row:
            twice = f"{shown(table)} row {row + 2} names {shown(Path(str(name)))}, as row {before + 2} does"
            raise DataError(f"{twice}; give each file one row, with several labels joined by {SEPARATOR}")
    return paths, np.flatnonzero(present)


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


def _given(table: Path, columns: dict[str, list[Any]]) -> NDArray[np.int8]:
    """Return `Samples.fixed_split` from the column of splits, if any. Raises DataError for other words."""
    name = next((name for name in columns if name.lower() == SPLIT_COLUMN), None)
    if name is None:
        return np.full(len(next(iter(columns.values()))), UNASSIGNED, np.int8)
    words = splits_of(sorted({str(value) for value in columns[name]}))
    unknown = next((word for word, split in words.items() if split is None), None)
    if unknown is not None:
        row = [str(value) for value in columns[name]].index(unknown) + 2
        raise DataError(f"{shown(table)} row {row} has the split {unknown!r}; expected train, valid or test")
    if "train" not in words.values():
        raise DataError(f"{shown(table)} has no row of the split train; training images are required")
    codes = {w: UNASSIGNED if split in (None, "train") else SPLITS.index(split) for w, split in words.items()}
    return np.array([codes[str(value)] for value in columns[name]], np.int8)


def _missing_files(count: int) -> str:
    return "1 file that does not exist" if count == 1 else f"{count:,} files that do not exist"
