"""Values of a column of a table, in all their forms: numbers, dates, categories, and those that are missing.

NaN is a missing value; so are None and the texts in `MISSING`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Floats

ColumnValues = Sequence[Any] | NDArray[Any]
"""Values of a column, one a row: a list, an array, or a column of a data frame."""

MISSING = frozenset(("", "?", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NaT", "null", "NULL", "None"))
"""Texts that stand for a missing value."""
TRUTH = {"true": 1.0, "false": 0.0}
"""Numbers of the words for truth values, in lower case."""
SECONDS_A_DAY = 86400
EARLIEST, LATEST = -719162, 2932897
"""Days since 1970-01-01 of the first day of year 1, and of the day after the last of year 9999."""
DATE_EXAMPLE = "a date such as 2024-05-31 or 2024-05-31T12:00"
_WHOLE = re.compile(r"-?\d+\.0+")


def parse_numbers(values: ColumnValues) -> tuple[Floats, int | None]:
    """Return `values` as numbers, NaN where one is missing, and the first row without a number; None: all have one."""
    if not isinstance(values, np.ndarray) or values.dtype.kind in "biufUS":
        try:
            found = np.array(values, np.float64)
        except (TypeError, ValueError, OverflowError):
            found = np.empty(())  # something is missing, not a number, or too large
        if found.ndim == 1:
            return found, None
    return _each(values, parse_number)


def parse_number(value: Any) -> float | None:
    """Return a value that is there as a number; None where it is none."""
    if isinstance(value, Real | Decimal | np.bool_):
        return _double(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    try:
        return float(value)
    except ValueError:
        return TRUTH.get(value.strip().lower())


def parse_dates(values: ColumnValues) -> tuple[Floats, int | None]:
    """Return dates as days since 1970-01-01, NaN where one is missing, and the first row without a date; None: all."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        ticks = values.astype("M8[us]")
        days = np.where(np.isnat(ticks), np.nan, ticks.astype(np.int64) / (SECONDS_A_DAY * 1e6))
        return days, _outside(days)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        days = values.astype(np.float64)
        return days, _outside(days)
    days, wrong = _each(values, _day)
    return days, _outside(days) if wrong is None else wrong


def category_text(value: Any) -> str | None:
    """Return a category as text, None where it is missing; whole numbers are without a point, as "1" for 1.0."""
    if isinstance(value, str):
        return _category_of(str(value))
    if is_missing(value):
        return None
    return _category_of(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


@functools.lru_cache(maxsize=4096)  # columns repeat their categories
def _category_of(text: str) -> str | None:
    text = text.strip()
    if text in MISSING:
        return None
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def is_missing(value: Any) -> bool:
    """Return whether a value is missing: NaN, None, NaT, pandas' NA, or a text in `MISSING`."""
    if isinstance(value, str):
        return value.strip() in MISSING
    if isinstance(value, bytes):
        return value.strip().decode("utf-8", "replace") in MISSING
    if isinstance(value, float | np.floating):
        return bool(value != value)
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # of pandas


def _each(values: ColumnValues, parse: Callable[[Any], float | None]) -> tuple[Floats, int | None]:
    """Return what `parse` makes of each value that is there, else NaN, and the first row of which it makes nothing."""
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if is_missing(value):
            continue
        parsed = parse(value)
        if parsed is None:
            return found, row
        found[row] = parsed
    return found, None


def _day(value: Any) -> float | None:
    """Return a value that is there as days since 1970-01-01; None where it is no date."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    elif isinstance(value, np.datetime64):
        return int(value.astype("M8[us]").astype(np.int64)) / (SECONDS_A_DAY * 1e6)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() / SECONDS_A_DAY
    is_number = isinstance(value, Real | Decimal) and not isinstance(value, bool | np.bool_)
    return _double(value) if is_number else None


def _double(value: Any) -> float | None:
    """Return a number in double precision, infinite where it is too large; None for a duration of NumPy."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf
    except TypeError:
        return None


def _outside(days: Floats) -> int | None:
    """Return the first row whose date is in none of the years 1 to 9999; None where there is none."""
    outside = (days < EARLIEST) | (days >= LATEST)
    return int(outside.argmax()) if outside.any() else None
