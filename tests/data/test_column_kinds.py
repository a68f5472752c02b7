"""Kinds of columns inferred from their values."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest

from ripieno.data.column_kinds import infer_kind

COUNT = 60
HALF = [f"code {i % 25}" for i in range(COUNT)]


@pytest.mark.parametrize(
    ("name", "values", "kind", "reason"),
    [
        ("x", [i % 7 for i in range(COUNT)], "number", ""),
        ("x", [f"{i % 7}.5" for i in range(COUNT)], "number", ""),
        ("x", ["1", "?", "", "NA", "3"] * 12, "number", ""),
        ("x", ["True", "false"] * 30, "number", ""),
        ("x", np.array([True, False] * 30), "number", ""),
        ("x", [17 * i % 61 for i in range(COUNT)], "number", ""),  # each once, but neither counted up nor an id
        ("x", HALF, "category", ""),
        ("x", [*HALF[:-1], ""], "category", ""),
        ("x", np.array(HALF, object), "category", ""),
        ("x", [f"v{i}" for i in range(20)], "category", ""),  # few
        ("x", [f"2024-05-{i % 31 + 1:02}" for i in range(COUNT)], "date", ""),
        ("x", [*["2024-05-31 12:00"] * 59, ""], "date", ""),
        ("x", [date(2024, 5, i % 31 + 1) for i in range(COUNT)], "date", ""),
        ("x", np.arange(COUNT).astype("M8[D]"), "date", ""),
        ("x", [None, *np.arange(COUNT).astype("M8[D]")], "date", ""),
        ("x", [10**400, *range(COUNT)], "number", ""),
        ("x", list(range(COUNT)), None, "an id"),
        ("row", list(range(100, 100 + COUNT)), None, "an id"),
        ("row", list(range(2050, 2050 + COUNT)), None, "an id"),
        ("x", list(range(1950, 1950 + COUNT)), "number", ""),  # years
        ("id", list(range(1950, 1950 + COUNT)), None, "an id"),
        ("user_id", [17 * i % 61 for i in range(COUNT)], None, "an id"),
        ("ID", [17 * i % 61 for i in range(COUNT)], None, "an id"),
        ("Customer Id", [17 * i % 61 for i in range(COUNT)], None, "an id"),
        ("userId", [17 * i % 61 for i in range(COUNT)], None, "an id"),
        ("user_id", [i // 2 for i in range(COUNT)], "number", ""),
        ("paid", [17 * i % 61 for i in range(COUNT)], "number", ""),
        ("x", [f"u{i}" for i in range(COUNT)], None, "an id"),
        (
            "img",
            [f"all/{i}.JPG" for i in range(COUNT)],
            None,
            "image files; a table of images names them in a column file",
        ),
        ("x", [f"it is late {i}" for i in range(COUNT)], None, "free text"),
        ("x", [f"u{i % 40}" for i in range(COUNT)], None, "text of which most values occur once"),
        ("x", [*map(str, range(1, COUNT)), "many"], None, "'many' among numbers"),
        ("x", ["", None, "NaN"] * 20, None, "no values"),
        ("x", [[1, 2]] * COUNT, None, "lists"),
        ("", [1.5] * COUNT, None, "an index"),
        ("Unnamed: 0", [1.5] * COUNT, None, "an index"),
    ],
)
def test_values_say_what_a_column_is(name: str, values: Any, kind: str | None, reason: str) -> None:
    assert infer_kind(name, values) == (kind, reason)
