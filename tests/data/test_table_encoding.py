"""Values of columns, encoded as numbers: kinds, missing and unseen values, dates, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from ripieno.data.table_encoding import count_unseen, date_parts, encode, unseen_notes
from ripieno.errors import DataError
from ripieno.types import Column, DatePart

AGE, JOB = Column("age"), Column("job", "category", ("clerk", "7"))
PARTS: tuple[DatePart, ...] = ("year", "month", "day", "weekday", "hour", "age")
WHEN = Column("when", "date", parts=PARTS, latest=20000.0)
NAN = float("nan")


def encoded(column: Column, values: Any) -> Any:
    return encode((column,), {column.name: values}, "x.csv", DataError, 2)


@pytest.mark.parametrize(
    "values",
    [
        [1, 2.5, None],
        ["1", " 2.5 ", ""],
        ["1.0", "25e-1", "?"],
        [1, "2.5", NAN],
        np.array([1, 2.5, NAN]),
        np.array([[1], [2.5], [NAN]]),
        np.array(["1", "2.5", "nan"]),
        [b"1", b"2.5", b""],
        [True, Decimal("2.5"), "None"],
        ["True", "2.5", "NA"],
        np.array([np.float32(1), 2.5, None], object),
    ],
)
def test_numbers_are_read_from_values_and_text(values: Any) -> None:
    np.testing.assert_array_equal(encoded(AGE, values), np.array([[1], [2.5], [NAN]], np.float32))


def test_truth_values_are_0_and_1() -> None:
    for values in ([True, False], ["true", "FALSE"], np.array([True, False])):
        assert encoded(AGE, values).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    "values",
    [
        ["clerk", "7", "smith", ""],
        [b"clerk", 7, "smith", None],
        ["clerk", 7.0, b"smith", NAN],
        [" clerk", "7.0", "Clerk", "?"],
        np.array(["clerk", "7", "x", "NA"]),
    ],
)
def test_categories_are_their_index_unseen_ones_minus_1(values: Any) -> None:
    np.testing.assert_array_equal(encoded(JOB, values), np.array([[0], [1], [-1], [NAN]], np.float32))


NOON = datetime(2024, 5, 31, 12, 30)


@pytest.mark.parametrize(
    "values",
    [
        ["2024-05-31T12:30", "1969-12-31", None],
        ["2024-05-31 12:30:00Z", "19691231", ""],
        ["2024-05-31T14:30+02:00", "1969-12-31T00:00", "NaT"],
        [NOON, date(1969, 12, 31), NAN],
        [NOON.replace(tzinfo=UTC), datetime(1969, 12, 31), None],
        [(NOON + timedelta(hours=5)).replace(tzinfo=timezone(timedelta(hours=5))), "1969-12-31", None],
        [np.datetime64("2024-05-31T12:30"), np.datetime64("1969-12-31"), np.datetime64("NaT")],
        np.array(["2024-05-31T12:30", "1969-12-31", "NaT"], "M8[ns]"),
        np.array([19874 + 12.5 / 24, -1, NAN]),
        [19874 + 12.5 / 24, -1, None],
        [b"2024-05-31T12:30", b"1969-12-31", b""],
    ],
)
def test_dates_become_their_parts(values: Any) -> None:
    expected = [[2024, 5, 31, 4, 12.5, 20000 - 19874 - 12.5 / 24], [1969, 12, 31, 2, 0, 20001], [NAN] * 6]
    np.testing.assert_allclose(encoded(WHEN, values), np.array(expected, np.float32), rtol=1e-6)


def test_parts_of_all_days_are_those_of_the_calendar() -> None:
    days = np.arange(-200_000, 200_000, 373).astype(np.float64)
    parts = date_parts(days, PARTS[:4], 0.0).astype(int).tolist()
    dates = [date(1970, 1, 1) + timedelta(days=int(day)) for day in days]
    assert parts == [[d.year, d.month, d.day, d.weekday()] for d in dates]


def test_columns_stand_in_their_order() -> None:
    few = Column("when", "date", parts=("month",))
    matrix = encode((JOB, few, AGE), {"age": [3], "job": ["7"], "when": ["2024-05-31"]}, "x", DataError)
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[1, 5, 3]]
    assert encode((AGE, WHEN), {"age": [], "when": []}, "x", DataError).shape == (0, 7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"age": [1]}, "x.csv has no column 'job'; expected the columns age, job, when"),
        ({"agg": [1], "job": [1], "when": [1]}, "x.csv has no column 'age'"),
        (
            {"age": [1], "job": [1], "when": [1], "sex": [1]},
            "x.csv has the unknown column 'sex'; expected the columns age, job, when; leave it out",
        ),
        ({"age": [1, 2], "job": [1], "when": [1, 1]}, "x.csv has 2 values for 'age', but 1 for 'job'"),
        ({"age": [1, "old"], "job": [1, 1], "when": [1, 1]}, "x.csv row 3 holds 'old' for 'age'; expected a number"),
        ({"age": ["inf"], "job": [1], "when": [1]}, "row 2 holds 'inf' for 'age'; expected a finite number"),
        ({"age": [1e39], "job": [1], "when": [1]}, "holds '1e+39' for 'age'; expected a finite number"),
        ({"age": [[1, 2]], "job": [1], "when": [1]}, "holds '[1, 2]' for 'age'; expected a number"),
        ({"age": np.ones((1, 2)), "job": [1], "when": [1]}, "column 'age' of x.csv has shape (1, 2); expected (rows,)"),
        ({"age": [1], "job": [1], "when": ["31/05/2024"]}, "holds '31/05/2024' for 'when'; expected a date such as"),
        ({"age": [1], "job": [1], "when": [True]}, "holds 'True' for 'when'; expected a date"),
        ({"age": [1], "job": [1], "when": [1e9]}, "holds '1000000000.0' for 'when'; expected a date"),
        ({"age": [10**400], "job": [1], "when": [1]}, "for 'age'; expected a finite number"),
        ({"age": [None, -(10**400)], "job": [1, 1], "when": [1, 1]}, "for 'age'; expected a finite number"),
        ({"age": [1], "job": [1], "when": [10**400]}, "for 'when'; expected a date"),
        ({"age": ["x" * 99], "job": [1], "when": [1]}, "holds '" + "x" * 40 + "...' for 'age'"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_a_line(values: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        encode((AGE, JOB, WHEN), values, "x.csv", DataError, 2)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unseen_categories_are_counted() -> None:
    columns = (WHEN, JOB, AGE)
    rows = encode(columns, {"when": [0] * 3, "job": ["clerk", "a", "b"], "age": [-1] * 3}, "x", DataError)
    assert count_unseen(columns, rows) == {"job": 2}
    assert unseen_notes(columns, rows, "x") == [
        "x: values that training did not have are read as unseen categories, in 'job' (2) of its rows"
    ]
    assert not unseen_notes(columns, rows[:1], "x")
