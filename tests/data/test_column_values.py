"""Values of columns as numbers, dates and categories, in the forms that only one of these has."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ripieno.data.column_values import MISSING, category_text, parse_dates, parse_numbers

NAN = float("nan")


def test_categories_are_text_in_one_form() -> None:
    assert [category_text(value) for value in (1, 1.0, "1.0", "-2.00", "007", "1.5", 1.5, True)] == [
        *("1", "1", "1", "-2", "007", "1.5", "1.5", "True"),
    ]
    assert all(category_text(text) is None for text in (*MISSING, None, NAN, np.datetime64("NaT")))


def test_numbers_too_large_are_infinite_and_durations_none() -> None:
    for large in (10**400, Fraction(10**400), "1e400"):
        assert parse_numbers([1, large])[0].tolist() == [1, np.inf]
        assert parse_dates([1, large])[1] == 1
    assert parse_numbers(np.array([1, 2], "m8[D]"))[1] == 0
