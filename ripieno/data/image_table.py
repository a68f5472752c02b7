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

from ripieno.data.pictures import CountCallback, read_pictures
from ripieno.data.samples import UNASSIGNED, Samples, file_names
from ripieno.data.splits import check_sizes
from ripieno.data.table_columns import (
    GAPS,
    SPLIT_COLUMN,
    check_targets,
    is_gap,
    read_split_column,
    read_target_columns,
)
from ripieno.data.table_file import TABLES, column_names, read_columns
from ripieno.data.walk import shown
from ripieno.errors import DataError
from ripieno.tasks.target_text import SEPARATOR
from ripieno.types import Ints, Task

INSIDE = ("labels.csv", "labels.parquet")
"""Names of a table in an image folder."""
FILE_COLUMNS = ("file", "path", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file")
"""Names of the column of files, in lower case; the first that is there counts."""


def table_path(path: Path) -> Path | None:
    """Return the table of image files at `path`: itself, or the one inside a folder; None where there is none."""
    if path.is_dir():
        return next((path / name for name in INSIDE if (path / name).is_file()), None)
    return path if path.suffix.lower() in TABLES else None


def has_file_column(table: Path) -> bool:
    """Return whether a table has a column of image files. Raises DataError for a file that cannot be read."""
    return any(name.lower() in FILE_COLUMNS for name in column_names(table, DataError))


def listed_files(table: Path) -> list[Path]:
    """Return the paths of all image files that a table names, none of a table of series or of rows.

    Raises DataError as `read_image_table`.
    """
    if not has_file_column(table):
        return []
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
    named = file_names([found.paths[row] for row in rows], table.parent)
    given = found.given[rows]
    return Samples(shown(Path(name)), images, found.targets[rows], given, found.task, "image", files=named)


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
    names = [f"row {row + 2}" for row in range(len(columns[files]))]
    check_targets({name: columns[name] for name in chosen}, where, names, is_gap)
    paths, present = _paths(table, columns[files], skip_bad, notes)
    targets, made = read_target_columns(read, chosen, where, names, task, notes)
    given = np.full(len(paths), UNASSIGNED, np.int8)
    if split := next((name for name in columns if name.lower() == SPLIT_COLUMN), None):
        given = read_split_column(where, columns[split], names)
    return TableTargets([paths[row] for row in present], targets[present], given[present], made)


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


def _paths(table: Path, names: Sequence[Any], skip_bad: bool, notes: list[str]) -> tuple[list[Path], NDArray[np.int64]]:
    """Return all paths, and the rows whose file exists.

    Raises DataError for files that are named twice, and for missing ones unless `skip_bad`.
    """
    empty = next((row for row, name in enumerate(names) if is_gap(name)), None)
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


def _missing_files(count: int) -> str:
    return "1 file that does not exist" if count == 1 else f"{count:,} files that do not exist"
