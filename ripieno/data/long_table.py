"""Series in the rows of a table: a `.csv` or `.parquet` file in long form, a row for each point of a series.

    series,time,value,label          patient,hour,pulse,pressure,age,split
    a,0,0.31,walk                    p1,0,71,120,54,train
    a,1,0.35,walk                    p1,1,74,118,54,train
    b,0,1.20,run                     p2,0,66,131,61,test

Columns name the series, the time (a number or a date; without it the rows are in order), and one value a channel. The
other columns are targets, and an optional split; both have one value a series. Points are at equal intervals: times
that are missing in between are gaps, whose values are interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.samples import Samples, given_of
from ripieno.data.series import join_series, pad
from ripieno.data.table_columns import (
    SPLIT_COLUMN,
    is_gap,
    number_column,
    read_split_column,
    read_target_columns,
)
from ripieno.data.table_file import FileColumns, read_columns
from ripieno.data.walk import shown
from ripieno.errors import DataError
from ripieno.types import Float32s, Ints

TOLERANCE = 0.1
"""Share of the interval by which a time may be off."""


@dataclass(frozen=True)
class SeriesColumns:
    """Columns of a table in long form."""

    series: str = ""
    """names the series of a row; empty: `series` or `id`"""
    time: str = ""
    """empty: `time` where there is such a column, else the rows are in order"""
    value: tuple[str, ...] = ()
    """one a channel; empty: `value`, or all but those named and the targets"""

    @property
    def given(self) -> bool:
        """Return whether any column is named, so that a table holds series."""
        return bool(self.series or self.time or self.value)


UNNAMED = SeriesColumns()
"""Columns of which none is named."""


@dataclass(frozen=True, eq=False)
class _LongTable:
    """Rows of a table, grouped by series."""

    where: str
    read: FileColumns
    columns: SeriesColumns
    names: list[str]
    """of the series, in the order of the file"""
    rows: list[Ints]
    """of each series, in the order of time"""
    times: NDArray[np.float64] | None
    """of all rows, as numbers; None without a column of times"""


def read_long_table(
    table: Path,
    columns: SeriesColumns,
    target: Sequence[str],
    notes: list[str],
    task: str | None = None,
) -> Samples:
    """Read series, targets and splits of a table in long form.

    Raises DataError (one line) for absent columns, values that are no numbers, times that are not at equal intervals,
    and targets or splits that differ within a series.
    """
    long = _grouped(table, columns, target, notes)
    taken = {long.columns.series, long.columns.time, *long.columns.value}
    others = [name for name in long.read.columns if name not in taken and name.lower() != SPLIT_COLUMN and name]
    chosen = tuple(target) or tuple(others)
    if not chosen:
        raise DataError(f"{long.where} has no column of targets; expected one with the same value in a whole series")
    firsts = [rows[0] for rows in long.rows]
    split = next((name for name in long.read.columns if name.lower() == SPLIT_COLUMN), None)
    for name in (*chosen, *([split] if split else [])):
        _check_constant(long, name)
    series = join_series([_series(long, notes)], [long.where], notes)[0]
    once = FileColumns({n: [long.read.columns[n][i] for i in firsts] for n in chosen}, long.read.decimal_comma)
    names = [f"series {name!r}" for name in long.names]
    targets, made = read_target_columns(once, chosen, long.where, names, task, notes)
    given = given_of("train", len(series))
    if split:
        given = read_split_column(long.where, [long.read.columns[split][i] for i in firsts], names)
    return Samples(shown(Path(table.stem)), series, targets, given, made, "series")


def read_long_series(table: Path, columns: SeriesColumns, notes: list[str]) -> tuple[list[str], Float32s]:
    """Read the names and the series (samples, length, channels) of a table in long form, without targets.

    Raises DataError as `read_long_table`.
    """
    long = _grouped(table, columns, None, notes)
    return long.names, join_series([_series(long, notes)], [long.where], notes)[0]


def _grouped(table: Path, columns: SeriesColumns, target: Sequence[str] | None, notes: list[str]) -> _LongTable:
    """Read the columns of a table, and group its rows; `target` is None where there are no targets to read."""
    read, where = read_columns(table, DataError), shown(table)
    columns = _found(read, columns, target, where)
    ids = read.columns[columns.series]
    if (empty := next((row for row, name in enumerate(ids) if is_gap(name)), None)) is not None:
        raise DataError(f"{where} row {empty + 2} has no {columns.series}; fill it or remove the row")
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        groups.setdefault(str(name), []).append(row)
    rows = [np.array(group) for group in groups.values()]
    times = _times(read, columns.time, where) if columns.time else None
    if times is not None:
        rows = [group[np.argsort(times[group], kind="stable")] for group in rows]
    else:
        notes.append(f"{where}: no column of times; the rows of a series are in the order of the file")
    return _LongTable(where, read, columns, list(groups), rows, times)


def _found(read: FileColumns, columns: SeriesColumns, target: Sequence[str] | None, where: str) -> SeriesColumns:
    """Return the columns with those that have no name given. Raises DataError for absent ones."""
    have = list(read.columns)
    for name in (columns.series, columns.time, *columns.value, *(target or ())):
        if name and name not in have:
            raise DataError(f"{where} has no column {name!r}; expected one of {', '.join(have)}")
    series = columns.series or next((name for name in ("series", "id") if name in have), "")
    if not series:
        listed = ", ".join(have)
        raise DataError(f"{where} has the columns {listed}; name that of the series with --series (series=)")
    time = columns.time or ("time" if "time" in have else "")
    value = columns.value or (("value",) if "value" in have else ())
    if not value and target:
        taken = {series, time, *target}
        value = tuple(name for name in have if name and name not in taken and name.lower() != SPLIT_COLUMN)
    if not value:
        listed = ", ".join(have)
        raise DataError(f"{where} has the columns {listed}; name those of the values with --value (value=)")
    roles = [series, *([time] if time else []), *value, *(target or ())]
    if twice := next((name for name in roles if roles.count(name) > 1), None):
        raise DataError(f"column {twice!r} of {where} is named for two things; name each column once")
    return SeriesColumns(series, time, value)


def _times(read: FileColumns, name: str, where: str) -> NDArray[np.float64]:
    """Return times as numbers; dates as seconds. Raises DataError naming a row whose time cannot be read."""
    values = read.columns[name]
    numbers = number_column(read, name)
    missing = map(is_gap, values) if numbers is None else ~np.isfinite(numbers)
    if (empty := next((row for row, is_empty in enumerate(missing) if is_empty), None)) is not None:
        raise DataError(f"{where} row {empty + 2} has no {name}; fill it or remove the row")
    if numbers is not None:
        return numbers
    found = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            found[row] = _seconds(value)
        except (TypeError, ValueError) as error:
            wrong = row or _first_text(read, name)  # where the first row has a number, all are meant to
            held = f"{where} row {wrong + 2} holds {str(values[wrong])[:40]!r} for {name}"
            raise DataError(f"{held}; expected a number or a date such as 2024-05-31 12:00:00") from error
    return found


def _first_text(read: FileColumns, name: str) -> int:
    """Return the first row of a column whose value is neither absent nor a number; 0 where there is none."""
    cells = (FileColumns({name: [value]}, read.decimal_comma) for value in read.columns[name])
    return next((row for row, cell in enumerate(cells) if number_column(cell, name) is None), 0)


def _seconds(value: Any) -> float:
    """Return the seconds of a date; one without a zone is UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} is no date")
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def _series(long: _LongTable, notes: list[str]) -> Float32s:
    """Return the series, with NaN for values and times that are missing."""
    values = np.stack([_values(long, name) for name in long.columns.value], axis=1)
    steps = [np.diff(long.times[rows]) for rows in long.rows] if long.times is not None else []
    taken = np.concatenate([np.empty(0), *steps])
    if not len(taken):
        return pad([values[rows] for rows in long.rows])
    interval = float(np.median(taken))
    series, inserted = [], 0
    for name, rows, own in zip(long.names, long.rows, steps, strict=True):
        where = f"series {name!r} of {long.where}"
        if (own <= 0).any():
            at = rows[1:][own <= 0][0]
            raise DataError(f"{where} has two rows of one {long.columns.time} (row {at + 2}); remove one of them")
        counts = np.rint(own / interval)
        unlike = (np.abs(own / interval - counts) > TOLERANCE) | (counts < 1)
        if unlike.any() or (len(own) and counts.min() > 1):
            step = own[unlike][0] if unlike.any() else own.min()
            held = f"{where} has a step of {step:g} in {long.columns.time}, where {interval:g} is usual"
            raise DataError(f"{held}; expected equal intervals; resample it, or remove the column of times")
        places = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if places[-1] + 1 > 2 * len(rows):
            held = f"{where} has {len(rows):,} rows in a time of {places[-1] + 1:,}"
            raise DataError(f"{held}; expected at most half of the points to be missing; leave it out")
        one = np.full((places[-1] + 1, values.shape[1]), np.nan, np.float32)
        one[places] = values[rows]
        inserted += len(one) - len(rows)
        series.append(one)
    if inserted:
        what = "1 time is" if inserted == 1 else f"{inserted:,} times are"
        notes.append(f"{what} missing in {long.where}: values at intervals of {interval:g} are interpolated there")
    return pad(series)


def _values(long: _LongTable, name: str) -> NDArray[np.float32]:
    """Return a column of values; NaN where it has none. Raises DataError naming a row without a number."""
    numbers = number_column(long.read, name)
    if numbers is None:
        row = _first_text(long.read, name)
        held = f"{long.where} row {row + 2} holds {str(long.read.columns[name][row])[:40]!r} for {name}"
        raise DataError(f"{held}; expected numbers; name the columns of values with --value (value=)")
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _check_constant(long: _LongTable, name: str) -> None:
    """Raise DataError for a column of targets or splits that is empty in a row, or differs within a series."""
    column = long.read.columns[name]
    for series, rows in zip(long.names, long.rows, strict=True):
        for row in rows:
            if is_gap(column[row]):
                raise DataError(f"{long.where} row {row + 2} has no {name}; fill it or remove the series")
            if column[row] != column[rows[0]]:
                both = f"{str(column[rows[0]])[:40]!r} and {str(column[row])[:40]!r}"
                held = f"series {series!r} of {long.where} has {both} for {name} (row {row + 2})"
                raise DataError(f"{held}; expected one value in a series; name the targets with --target (target=)")
