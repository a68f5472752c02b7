"""Columns that are the target again, and those that only resemble it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.data.leaks import leak_notes
from ripieno.types import Column, Task, classification

ROWS = 200
DRAWN = np.random.default_rng(0)
VALUES = DRAWN.normal(size=ROWS)
CLASSES = DRAWN.integers(0, 3, ROWS)
NUMBER, CATEGORY = Column("x"), Column("x", "category", ("a", "b", "c"))


def leaks(column: Column, inputs: NDArray[Any], targets: NDArray[Any], rows: int = ROWS) -> bool:
    is_class = targets.dtype.kind == "i"
    task = classification(("p", "q", "r")) if is_class else Task("regression", (1,), ("value",))
    encoded = inputs[:rows, np.newaxis].astype(np.float32)
    return bool(leak_notes((column,), encoded, targets[:rows] if is_class else targets[:rows, np.newaxis], task))


@pytest.mark.parametrize(
    ("column", "inputs", "targets", "expected"),
    [
        (NUMBER, 3 - VALUES / 7, VALUES, True),
        (NUMBER, np.exp(VALUES), VALUES, True),
        (NUMBER, VALUES + 0.1 * DRAWN.normal(size=ROWS), VALUES, False),
        (NUMBER, np.where(np.arange(ROWS) < 10, np.nan, VALUES), VALUES, True),
        (NUMBER, np.where(np.arange(ROWS) < 40, np.nan, VALUES), VALUES, False),
        (NUMBER, np.ones(ROWS), VALUES, False),
        (Column("x", "date", parts=("age",)), VALUES, VALUES, False),
        (CATEGORY, (CLASSES + 1) % 3, CLASSES, True),
        (CATEGORY, np.where(np.arange(ROWS) < 1, CLASSES + 1, CLASSES) % 3, CLASSES, False),
        (CATEGORY, CLASSES // 2, CLASSES, False),
        (NUMBER, CLASSES + 3 * (np.arange(ROWS) % 2), CLASSES, False),
    ],
)
def test_a_column_is_the_target_again_where_each_determines_the_other(
    column: Column, inputs: NDArray[Any], targets: NDArray[Any], expected: bool
) -> None:
    assert leaks(column, inputs, targets) is expected


def test_few_rows_say_nothing() -> None:
    assert leaks(NUMBER, VALUES, VALUES, 20)
    assert not leaks(NUMBER, VALUES, VALUES, 19)
