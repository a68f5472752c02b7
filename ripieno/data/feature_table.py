"""Tables with a row for each sample: a `.csv` or `.parquet` file, a data frame, or a mapping of columns.

age,work,started,income        Columns are numbers, categories or dates, see `ripieno.data.column_kinds`. One or
39,office,2011-03-01,low       more of them are targets, and an optional column `split` holds train, valid or test.
50,,2009-10-15,high            Missing values are empty, see `ripieno.data.column_values.MISSING`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.data.column_kinds import infer_kind
from ripieno.data.column_values import ColumnValues, category_text, is_missing, parse_dates, parse_numbers
from ripieno.data.data_frame import data_frame_columns
from ripieno.data.image_table import has_file_column
from ripieno.data.raw_columns import SplitBy, take_columns
from ripieno.data.samples import Samples, given_of
from ripieno.data.splits import splits_of
from ripieno.data.table_columns import SPLIT_COLUMN, check_targets, read_split_column, read_target_columns
from ripieno.data.table_encoding import encode, unseen_notes
from ripieno.data.table_file import TABLES, FileColumns, read_columns
from ripieno.data.walk import shown
from ripieno.errors import DataError
from ripieno.tasks import labels
from ripieno.types import Column, ColumnKind, DataKind, Float32s, Floats, Task

TARGETS = ("target", "label")
"""Columns that are the target where none is named, the first that is there."""
FIRST_ROW = 2
"""Number of the first row of values of a file."""


@dataclass(frozen=True)
class TableOptions:
    """Options of a table with a row for each sample."""

    drop: tuple[str, ...] = ()
    """columns that are left out"""
    column: Mapping[str, ColumnKind] = field(default_factory=dict)
    """kinds of columns, in place of the inferred ones"""
    split_by: str = ""
    """column by which the samples are split, see `ripieno.data.split_by`; empty: at random"""

    @property
    def given(self) -> bool:
        """Return whether any is given, so that a table has a row for each sample."""
        return bool(self.drop or self.column or self.split_by)


NO_OPTIONS = TableOptions()


class SourceTable(NamedTuple):
    """Columns of a source, and how messages name it and its rows."""

    name: str
    where: str
    columns: dict[str, ColumnValues]
    first_row: int
    decimal_comma: bool = False

    def numbers(self, name: str) -> ColumnValues:
        """Return a column, with points for the commas of numbers in a file that writes them so."""
        values = self.columns[name]
        return [value.replace(",", ".") for value in values] if self.decimal_comma else values

    @property
    def row_names(self) -> list[str]:
        """Names of the rows in messages."""
        rows = len(next(iter(self.columns.values())))
        return [f"row {row}" for row in range(self.first_row, self.first_row + rows)]

    def check_known(self, names: Iterable[str]) -> None:
        """Raise DataError for a name that is that of no column."""
        for name in names:
            if name not in self.columns:
                expected = f"expected one of {labels.shown([*self.columns])}"
                raise DataError(f"{self.where} has no column {name!r}; {expected}")


def is_feature_table(path: Path, options: TableOptions, kind: DataKind | None) -> bool:
    """Return whether the file `path` is a table with a row for each sample.

    Without options or a kind that say so, it is one unless it has a column of image files.
    """
    is_file = path.suffix.lower() in TABLES and path.is_file()
    return is_file and (kind == "table" or options.given or not has_file_column(path))


def open_table(source: Any) -> SourceTable:
    """Read the columns of a file or of a data frame. Raises DataError, in one line."""
    if not isinstance(source, str | Path):
        return SourceTable("table", "the data", data_frame_columns(source, "the data"), 0)
    path = Path(source)
    read = read_columns(path, DataError)
    return SourceTable(shown(Path(path.stem)), shown(path), dict(read.columns), FIRST_ROW, read.decimal_comma)


def read_feature_table(
    source: Any, options: TableOptions, target: Sequence[str], notes: list[str], task: str | None = None
) -> Samples:
    """Read columns, targets and splits of a table.

    Raises DataError (one line) for columns that are not there, rows without a target, targets that cannot be used, and
    as `take_columns`.
    """
    table = open_table(source)
    chosen = _target_columns(table, target, options)
    table.check_known((*options.drop, *options.column, *((options.split_by,) if options.split_by else ())))
    rows = table.row_names
    targets, made = _read_targets(table, chosen, rows, task, notes)
    split = _split_column(table, (*chosen, *options.drop, *options.column))
    if split and options.split_by:
        held = f"{table.where} has a column {split!r}, which gives the split"
        raise DataError(f"{held}; leave split_by out, or that column with --drop {split} (drop=)")
    given = _read_splits(table, split, rows)
    by = _split_by(table, options, rows) if options.split_by else None
    reasons = dict.fromkeys(options.drop, "dropped")
    if by is not None and by.kind != "date":  # a date has parts to learn from
        reasons[by.name] = "splits the rows"
    values = {
        name: _converted(table, name, options.column.get(name))
        for name in table.columns
        if name not in chosen and name not in reasons and name != split
    }
    kinds = {name: kind for name, kind in options.column.items() if name not in reasons}
    raw = take_columns(values, table.where, kinds, left_out=reasons, split_by=by, first_row=table.first_row)
    empty = np.empty((len(targets), 0), np.float32)
    return Samples(table.name, empty, targets, given, made, "table", raw)


def read_features(table: SourceTable, columns: tuple[Column, ...], notes: list[str]) -> Float32s:
    """Return the `columns` of a table, encoded as (rows, values); other columns are ignored.

    One note counts unseen categories. Raises DataError, in one line, for a missing column and unfit values.
    """
    values = {c.name: _of_kind(table, c.name, c.kind) for c in columns if c.name in table.columns}
    rows = encode(columns, values, table.where, DataError, table.first_row)
    notes += unseen_notes(columns, rows, table.where)
    return rows


class FeatureTargets(NamedTuple):
    """Targets of a table to evaluate on."""

    targets: NDArray[Any]
    given: NDArray[np.int8]
    """as in `Samples.fixed_split`"""
    task: Task


def read_feature_targets(
    table: SourceTable, columns: tuple[Column, ...], target: Sequence[str], task: Task, notes: list[str]
) -> FeatureTargets:
    """Return the targets and the split of a table whose inputs are `columns`.

    Without `target`, they are the columns with the names of the task's targets, else the column that holds its classes.
    Raises DataError, in one line, where that is none or several, and for targets that cannot be used.
    """
    chosen = tuple(target) or _targets_of(table, columns, task)
    table.check_known(chosen)
    rows = table.row_names
    targets, found = _read_targets(table, chosen, rows, task.kind, notes)
    split = _split_column(table, (*chosen, *(column.name for column in columns)))
    return FeatureTargets(targets, _read_splits(table, split, rows, for_training=False), found)


def _read_targets(
    table: SourceTable, chosen: Sequence[str], rows: Sequence[str], task: str | None, notes: list[str]
) -> tuple[NDArray[Any], Task]:
    """Read the columns `chosen` as targets. Raises DataError naming a row without a target, and as `read_targets`."""
    plain = {name: _plain(table.columns[name]) for name in chosen}
    check_targets(plain, table.where, rows, is_missing)
    return read_target_columns(FileColumns(plain, table.decimal_comma), chosen, table.where, rows, task, notes)


def _target_columns(table: SourceTable, target: Sequence[str], options: TableOptions) -> tuple[str, ...]:
    """Return the columns of targets. Raises DataError for unknown ones, and where none is named."""
    first = next(iter(table.columns))
    if len(table.columns) < 2:
        held = f"{table.where} has one column, {first[:60]!r}"
        raise DataError(f"{held}; expected several, in a file separated by commas, semicolons, tabs or |")
    if not len(table.columns[first]):
        raise DataError(f"{table.where} has no rows; expected one for each sample")
    if not target:
        lower = {name.lower(): name for name in reversed(table.columns)}
        target = [lower[name] for name in TARGETS if name in lower and lower[name] not in options.drop][:1]
    if not target:
        listed = labels.shown([*table.columns])
        raise DataError(f"{table.where} has the columns {listed}; name that of the target with --target (target=)")
    for name in target:
        if name not in table.columns:
            raise DataError(f"{table.where} has no target {name!r}; expected one of {labels.shown([*table.columns])}")
        for other, given in (("drop", options.drop), ("column", options.column), ("split_by", (options.split_by,))):
            if name in given:
                raise DataError(f"column {name!r} is named by target and {other}; name it once")
    if len(set(target)) < len(target):
        raise DataError(f"target names a column twice: {', '.join(target)}; name each once")
    if twice := next((name for name in options.drop if name in options.column or name == options.split_by), None):
        raise DataError(f"column {twice!r} is dropped and used; name it once")
    return tuple(target)


def _targets_of(table: SourceTable, columns: tuple[Column, ...], task: Task) -> tuple[str, ...]:
    """Return the columns of the task's targets that are not inputs."""
    if all(name in table.columns for name in task.names):
        return task.names
    inputs = {column.name for column in columns}
    others = [name for name in table.columns if name not in inputs and name.lower() != SPLIT_COLUMN]
    holding = [name for name in others if {category_text(v) for v in table.columns[name]} <= {*task.names}]
    found = others if len(others) == 1 else holding
    if len(found) != 1:
        raise DataError(f"{table.where} has no one column of the targets; name it with --target (target=)")
    return tuple(found)


def _split_column(table: SourceTable, taken: Sequence[str]) -> str:
    """Return the column `split` where all its values are names of splits; empty where there is none."""
    name = next((n for n in table.columns if n.lower() == SPLIT_COLUMN and n not in taken), "")
    words = sorted({str(value) for value in table.columns[name]}) if name else []
    return name if name and all(split is not None for split in splits_of(words).values()) else ""


def _read_splits(table: SourceTable, split: str, rows: Sequence[str], for_training: bool = True) -> NDArray[np.int8]:
    """Return `Samples.fixed_split` from the column `split`; an empty name: from none."""
    if not split:
        return given_of("train", len(rows))
    return read_split_column(table.where, [*map(str, table.columns[split])], rows, for_training)


def _split_by(table: SourceTable, options: TableOptions, rows: Sequence[str]) -> SplitBy:
    """Return the column that orders or groups the rows. Raises DataError for a row without its value."""
    name = options.split_by
    values = table.numbers(name) if options.column.get(name) != "category" else table.columns[name]
    gap = next((row for row, value in enumerate(values) if is_missing(value)), None)
    if gap is not None:
        raise DataError(f"{table.where} {rows[gap]} has no {name}; fill it or remove the row")
    kind = options.column.get(name)
    orders: Mapping[ColumnKind, Callable[[ColumnValues], tuple[Floats, int | None]]]
    orders = {"number": parse_numbers, "date": parse_dates}
    tried: list[ColumnKind] = [kind] if kind else [*orders]
    for one in tried:
        if one in orders:
            order, wrong = orders[one](values)
            if wrong is None:
                return SplitBy(name, order, one)
    if kind in orders:
        raise DataError(f"{table.where}: column {name!r} is no {kind} in all rows; leave its kind out")
    texts = [category_text(value) or "" for value in table.columns[name]]
    return SplitBy(name, np.unique(texts, return_inverse=True)[1].astype(np.int64), "category")


def _converted(table: SourceTable, name: str, kind: ColumnKind | None) -> ColumnValues:
    """Return a column, with points in its numbers where it is taken for them."""
    if not table.decimal_comma or kind not in (None, "number"):
        return table.columns[name]
    numbers = table.numbers(name)
    return numbers if kind == "number" or infer_kind(name, numbers).kind == "number" else table.columns[name]


def _of_kind(table: SourceTable, name: str, kind: ColumnKind) -> ColumnValues:
    return table.numbers(name) if kind == "number" else table.columns[name]


def _plain(values: ColumnValues) -> list[Any]:
    plain: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return plain
