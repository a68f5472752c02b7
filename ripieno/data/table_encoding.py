"""Values of named columns of a table, encoded as the matrix that members take.

The same code reads the rows of training, of `predict` and `evaluate`, and of requests: `Column` says how the values of
each column become numbers. NaN is a missing value.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.column_values import DATE_EXAMPLE, ColumnValues, category_text, parse_dates, parse_numbers
from ripieno.errors import RipienoError
from ripieno.tasks.labels import shown
from ripieno.types import Column, DatePart, Float32s, Floats, column_places

UNSEEN = -1
"""Index of a category that is not among those of a column."""


def encode(
    columns: tuple[Column, ...],
    values: Mapping[str, ColumnValues],
    where: str,
    error: type[RipienoError],
    first_row: int = 0,
) -> Float32s:
    """Encode `values`, by the names of `columns`, as float32 (rows, values of all columns); NaN: missing.

    Numbers may be text that spells them, and truth values. A date is ISO 8601 text, a `datetime`, a NumPy datetime64,
    or a number of days since 1970-01-01; without a time zone it is UTC. A category that is not among those of its
    column is `UNSEEN`, no error.

    Raises `error`, in one line that begins with `where`, for a missing or unknown column, unequal lengths, an infinite
    number, and a value of another kind than its column; `first_row` is the number of the first row in messages.
    """
    names = [column.name for column in columns]
    expected = f"expected the columns {shown(names)}"
    for name in names:
        if name not in values:
            raise error(f"{where} has no column {name!r}; {expected}")
    if len(values) > len(names):
        unknown = next(name for name in values if name not in names)
        raise error(f"{where} has the unknown column {unknown!r}; {expected}; leave it out")
    flat = {name: _flat(values[name], f"column {name!r} of {where}", error) for name in names}
    rows = len(flat[names[0]])
    for name, given in flat.items():
        if len(given) != rows:
            counts = f"{rows:,} values for {names[0]!r}, but {len(given):,} for {name!r}"
            raise error(f"{where} has {counts}; expected one value in each row")
    matrix = np.empty((rows, sum(column.width for column in columns)), np.float32)
    for column, place in column_places(columns):
        matrix[:, place] = encode_column(column, flat[column.name], where, error, first_row)
    return matrix


def encode_column(
    column: Column, values: ColumnValues, where: str, error: type[RipienoError], first_row: int = 0
) -> Float32s:
    """Encode the values of one column, of one axis, as float32 (rows, column.width). Raises `error` as `encode`."""

    def fail(row: int, expected: str) -> RipienoError:
        return error(f"{where} row {first_row + row} holds {_short(values[row])} for {column.name!r}; {expected}")

    if column.kind == "category":
        index = _index(column.categories)
        # nearly all values are the very text of a category: finding its index directly is several times faster
        codes = [index[v] if type(v) is str and v in index else _category_code(v, index) for v in values]
        return np.array(codes, np.float32).reshape(-1, 1)
    if column.kind == "number":
        numbers, wrong = parse_numbers(values)
        if wrong is not None:
            raise fail(wrong, "expected a number; leave it empty where it is missing")
        with np.errstate(over="ignore"):
            single = numbers.astype(np.float32)
        infinite = np.isinf(single)
        if infinite.any():
            raise fail(int(infinite.argmax()), "expected a finite number; leave it empty where it is missing")
        return single[:, np.newaxis]
    days, wrong = parse_dates(values)
    if wrong is not None:
        raise fail(wrong, f"expected {DATE_EXAMPLE}, or days since 1970-01-01; leave it empty where it is missing")
    return date_parts(days, column.parts, column.latest)


def date_parts(days: Floats, parts: Sequence[DatePart], latest: float) -> Float32s:
    """Return the parts of dates in days since 1970-01-01, as float32 (rows, parts).

    Months and days count from 1, weekdays from Monday, which is 0. The hour is 0 to 24 with its fraction, and the age
    is in days before `latest`.
    """
    whole = np.floor(np.where(np.isnan(days), 0.0, days))
    dates = whole.astype(np.int64).astype("M8[D]")
    months = dates.astype("M8[M]")
    found: dict[DatePart, NDArray[Any]] = {
        "year": dates.astype("M8[Y]").astype(np.int64) + 1970,
        "month": months.astype(np.int64) % 12 + 1,
        "day": (dates - months.astype("M8[D]")).astype(np.int64) + 1,
        "weekday": (whole + 3) % 7,  # 1970-01-01 is a Thursday
        "hour": (days - whole) * 24,
        "age": latest - days,
    }
    encoded = np.stack([found[part] for part in parts], axis=1).astype(np.float32)
    encoded[np.isnan(days)] = np.nan
    return encoded


def count_unseen(columns: tuple[Column, ...], rows: NDArray[Any]) -> dict[str, int]:
    """Return the numbers of unseen categories in encoded `rows` (rows, values), by the columns that have any."""
    places = {column.name: place.start for column, place in column_places(columns) if column.kind == "category"}
    counts = (rows[:, list(places.values())] == UNSEEN).sum(axis=0)
    return {name: int(count) for name, count in zip(places, counts, strict=True) if count}


def unseen_notes(columns: tuple[Column, ...], rows: NDArray[Any], where: str) -> list[str]:
    """Return one note on the unseen categories in encoded `rows` (rows, values); none where there are none."""
    counts = count_unseen(columns, rows)
    if not counts:
        return []
    few = ", ".join(f"{name!r} ({count:,})" for name, count in list(counts.items())[:4])
    more = ", ..." if len(counts) > 4 else ""
    return [f"{where}: values that training did not have are read as unseen categories, in {few}{more} of its rows"]


def _flat(values: Any, what: str, error: type[RipienoError]) -> ColumnValues:
    """Return values with one axis: a column of a data frame as an array, and (rows, 1) as (rows,)."""
    if isinstance(values, list | tuple):
        return values
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise error(f"{what} has shape {array.shape}; expected (rows,), one value in each")
    return array


@functools.lru_cache(maxsize=256)
def _index(categories: tuple[str, ...]) -> dict[str, int]:
    return {category: index for index, category in enumerate(categories)}


def _category_code(value: Any, index: Mapping[str, int]) -> float:
    """Return the index of a category in any form, NaN where it is missing."""
    text = category_text(value)
    return np.nan if text is None else index.get(text, UNSEEN)


def _short(value: Any) -> str:
    """Return a value for a message, at most 40 characters of it."""
    text = str(value)
    return repr(text[:40] + "..." if len(text) > 40 else text)
