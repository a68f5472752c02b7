"""Rows of a table as text on the page: the values of their first columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.reports.column_quality import columns_of
from ripieno.types import Column, Dataset, column_places

SHOWN = 6
"""Maximum number of columns of a row."""
LENGTH = 40
"""Maximum number of characters of a value."""

RowValues = tuple[tuple[str, str], ...]
"""Names of columns with their values as text."""


def row_values(dataset: Dataset, rows: Sequence[int], order: Sequence[str]) -> dict[int, RowValues]:
    """Return the values of some rows of a table, of the first columns in `order`."""
    columns = {column.name: (column, place) for column, place in column_places(columns_of(dataset))}
    shown = [columns[name] for name in order[:SHOWN]]
    return {
        row: tuple((column.name, value_text(column, dataset.inputs[row, place])[:LENGTH]) for column, place in shown)
        for row in rows
    }


def value_text(column: Column, values: NDArray[Any]) -> str:
    """Return the value of a column in one row, encoded as `values` (column.width,), as text."""
    if np.isnan(values).all():
        return "missing"
    if column.kind == "date":
        return ", ".join(f"{part} {value:.4g}" for part, value in zip(column.parts, values, strict=True))
    value = float(values[0])
    if column.kind == "category":
        return column.categories[int(value)] if 0 <= value < len(column.categories) else "unseen"
    return f"{value:.0f}" if math.isfinite(value) and value.is_integer() else f"{value:.4g}"
