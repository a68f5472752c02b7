"""Values of columns as numbers, dates and categories, in the forms that only one of these has."""

from __future__ import annotations

import numpy as np

from ripieno.data.column_values import MISSING, category_text

NAN = float("nan")


def test_categories_are_text_in_one_form() -> None:
    assert [category_text(value) for value in (1, 1.0, "1.0", "-2.00", "007", "1.5", 1.5, True)] == [
        *("1", "1", "1", "-2", "007", "1.5", "1.5", "True"),
    ]
    assert all(category_text(text) is None for text in (*MISSING, None, NAN, np.datetime64("NaT")))
