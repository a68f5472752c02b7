"""Columns of a table as they were read, before the training samples say how they are encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ripieno.data.column_kinds import InferredKind, infer_kind
from ripieno.data.column_values import ColumnValues, category_text, parse_dates, parse_numbers
from ripieno.data.table_encoding import date_parts, encode
from ripieno.errors import DataError
from ripieno.tasks.labels import shown
from ripieno.types import Column, ColumnKind, DatePart, Float32s, Floats, Ints, column_places

MOST_COLUMNS = 5000
"""Columns of a table, at most."""
MOST_CATEGORIES = 1000
"""Categories of a column, at most: the most frequent ones; the rest are unseen."""
PERIODIC: tuple[DatePart, ...] = ("month", "day", "weekday", "hour")
"""Parts of a date that return, also in later rows than those of training."""
LISTED = 60
"""Columns that a description lists, at most."""
CUT = 20
"""Letters of a category in a description, at most."""


@dataclass(frozen=True, eq=False)
class SplitBy:
    """Column by which samples are split."""

    name: str
    values: NDArray[Any]
    """(samples,): numbers, or days of dates, which order the samples; or the numbers of their groups"""
    kind: ColumnKind
    """of a category, each value is a group"""

    @property
    def is_order(self) -> bool:
        """Return whether the values order the samples."""
        return self.kind != "category"

    @property
    def groups(self) -> Ints | None:
        """The group of each sample (samples,); None where the column orders them."""
        return None if self.is_order else self.values


@dataclass(frozen=True, eq=False)
class RawColumns:
    """Columns that become the inputs of samples, one value a sample."""

    where: str
    """names the table in messages"""
    values: Mapping[str, ColumnValues]
    """numbers, days since 1970-01-01, or texts of categories, by kind; NaN and None are missing"""
    kinds: Mapping[str, ColumnKind]
    """of the columns in `values`, in the same order"""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """the other columns, each with the reason"""
    split_by: SplitBy | None = None
    first_row: int = 0
    """number of the first row in messages"""


class FittedColumns(NamedTuple):
    """Columns as the training samples define them, and all samples encoded."""

    columns: tuple[Column, ...]
    inputs: Float32s
    """(samples, values)"""
    description: str
    """table of all columns, several lines"""


def take_columns(
    values: Mapping[str, ColumnValues],
    where: str,
    chosen: Mapping[str, ColumnKind],
    *,
    left_out: Mapping[str, str],
    split_by: SplitBy | None = None,
    first_row: int = 0,
) -> RawColumns:
    """Infer what each column of `values` is; `chosen` kinds overrule. `left_out` names further columns, with reasons.

    Raises DataError, in one line, for kinds and columns that are unknown, for values of another kind than the chosen
    one, and for more than `MOST_COLUMNS` columns.
    """
    check_kinds(chosen)
    for name in chosen:
        if name not in values and name not in left_out:
            raise DataError(f"{where} has no column {name!r}; expected one of {shown([*values, *left_out])}")
    if len(values) > MOST_COLUMNS:
        held = f"{where} has {len(values):,} columns besides the target; expected at most {MOST_COLUMNS:,}"
        raise DataError(f"{held}; leave some out with --drop (drop=), or pass an array of their values")
    for name, kind in chosen.items():
        if name in values:  # refuses what is no such value
            encode((Column(name, kind, parts=("day",)),), {name: values[name]}, where, DataError, first_row)
    kinds: dict[str, ColumnKind] = {}
    reasons = dict(left_out)
    for name, given in values.items():
        found = InferredKind(chosen[name]) if name in chosen else infer_kind(name, given)
        if found.kind is None:
            reasons[name] = found.reason
        else:
            kinds[name] = found.kind
    parsed = {name: _parsed(values[name], kind) for name, kind in kinds.items()}
    return RawColumns(where, parsed, kinds, reasons, split_by, first_row)


def _parsed(values: ColumnValues, kind: ColumnKind) -> ColumnValues:
    """Return values that are all of `kind` in the form of `RawColumns.values`."""
    if kind == "category":
        return [category_text(value) for value in values]
    return (parse_numbers if kind == "number" else parse_dates)(values)[0]


def check_kinds(chosen: Mapping[str, str]) -> None:
    """Raise DataError for a kind of column that is unknown."""
    for name, kind in chosen.items():
        if kind not in get_args(ColumnKind):
            expected = ", ".join(get_args(ColumnKind))
            raise DataError(f"column {name!r} is taken for {kind!r}; expected one of {expected} (--column NAME=KIND)")


def fit_columns(raw: RawColumns, rows: Ints) -> FittedColumns:
    """Return the columns as the training samples at `rows` define them, and the encoded samples.

    Columns with one value in all of them are left out. Raises DataError, in one line, for an infinite number, and where
    no column is left.
    """
    fitted, left_out = [], dict(raw.left_out)
    ranges: dict[str, str] = {}
    for name, kind in raw.kinds.items():
        found = _fit(name, kind, raw, rows)
        if found is None:
            left_out[name] = "one value in all training rows"
        else:
            fitted.append(found[0])
            ranges[name] = found[1]
    if not fitted:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in list(left_out.items())[:4])
        raise DataError(f"{raw.where} has no column to predict from ({reasons}); name its kind with --column NAME=KIND")
    columns = tuple(fitted)
    used = {column.name: raw.values[column.name] for column in columns}
    inputs = encode(columns, used, raw.where, DataError, raw.first_row)
    return FittedColumns(columns, inputs, _description(raw.where, columns, inputs[rows], ranges, left_out))


def _fit(name: str, kind: ColumnKind, raw: RawColumns, rows: Ints) -> tuple[Column, str] | None:
    """Return a column by its values at `rows`, and a description of them; None where they are all the same."""
    values = raw.values[name]
    if kind == "category":
        texts = [values[row] for row in rows]
        counts = Counter(text for text in texts if text is not None)
        if len(counts) + (None in texts) < 2:
            return None
        ranked = sorted(counts, key=lambda text: (-counts[text], text))
        kept = tuple(ranked[:MOST_CATEGORIES])
        rarer = f"; {len(ranked) - len(kept):,} rarer, read as unseen" if len(ranked) > len(kept) else ""
        listed = shown([_cut(text) for text in kept[:9]])
        return Column(name, kind, kept), f"{len(kept):,} categories: {listed}{rarer}"
    numbers = np.asarray(values)[rows]
    if _is_constant(numbers):
        return None
    known = numbers[~np.isnan(numbers)]
    if kind == "number":
        return Column(name, kind), f"{known.min():.6g} to {known.max():.6g}"
    latest = float(known.max())
    # later rows than those of training have other years and ages
    orders = raw.split_by is not None and raw.split_by.name == name
    parts = _varying_parts(known, latest, PERIODIC if orders else get_args(DatePart))
    span = f"{day_text(known.min())} to {day_text(latest)}, as {', '.join(parts)}"
    return Column(name, kind, parts=parts, latest=latest), span


def _is_constant(values: Floats) -> bool:
    """Return whether values are all the same, or all missing."""
    missing = np.isnan(values)
    return len(np.unique(values[~missing])) + bool(missing.any()) < 2 or bool(missing.all())


def _varying_parts(days: Floats, latest: float, parts: Sequence[DatePart]) -> tuple[DatePart, ...]:
    """Return those parts that differ between dates; the last where none does."""
    encoded = date_parts(days, parts, latest)
    varying = [part for part, values in zip(parts, encoded.T, strict=True) if (values != values[0]).any()]
    return tuple(varying) or (parts[-1],)


def _cut(text: str) -> str:
    return text if len(text) <= CUT else f"{text[:CUT]}..."


def day_text(days: float) -> str:
    """Return the date of `days` since 1970-01-01 as text."""
    return str(np.datetime64(int(np.floor(days)), "D"))


def _description(
    where: str, columns: Sequence[Column], rows: NDArray[Any], ranges: Mapping[str, str], left_out: Mapping[str, str]
) -> str:
    """Return a table of the columns: what each was taken for, its values in the encoded training `rows`, or why not."""
    lines: list[tuple[str, str, str]] = []
    for column, place in column_places(columns):
        missing = float(np.isnan(rows[:, place.start]).mean())
        text = ranges[column.name] + (f"; {missing:.1%} missing" if missing else "")
        lines.append((column.name, column.kind, text))
    lines += [(name, "left out", reason) for name, reason in left_out.items()]
    listed = lines[:LISTED]
    width = min(32, max(len(name) for name, _, _ in listed))
    counts = f"{len(columns):,} columns of {where} are used" + (f", {len(left_out):,} left out" if left_out else "")
    table = [f"  {name[:width]:{width}}  {kind:8}  {text}" for name, kind, text in listed]
    if len(lines) > len(listed):
        table.append(f"  and {len(lines) - len(listed):,} more")
    advice = "--column NAME=KIND takes one for a number, category or date, --drop NAME leaves it out"
    return "\n".join([counts, *table, advice])
