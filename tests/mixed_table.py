"""A table of numbers, categories and dates, with missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Column, Dataset, Float32s, Input, Task, classification, column_places

COLUMNS = (
    Column("age"),
    Column("colour", "category", ("red", "green", "blue")),
    Column("seen", "date", parts=("year", "month"), latest=20_000.0),
    Column("town", "category", tuple(f"town {i}" for i in range(20))),
    Column("income"),
    Column("member", "category", ("no", "yes")),
)
WIDTH = sum(column.width for column in COLUMNS)
TABLE = Input((WIDTH,), "float32", columns=COLUMNS)
AGE, COLOUR, YEAR, MONTH, TOWN, INCOME, MEMBER = range(WIDTH)
TASKS = {
    "classification": classification(("low", "high")),
    "multilabel": Task("multilabel", (2,), ("high", "rich")),
    "regression": Task("regression", (1,), ("value",)),
}


def mixed_rows(samples: int = 400, seed: int = 0) -> tuple[Float32s, Float32s]:
    """Rows (samples, WIDTH) as they are encoded, and a value of each that depends on all columns."""
    draw = np.random.default_rng(seed)
    rows = np.empty((samples, WIDTH), np.float32)
    rows[:, AGE] = draw.integers(18, 90, samples)
    rows[:, COLOUR] = draw.integers(0, 3, samples)
    rows[:, YEAR], rows[:, MONTH] = draw.integers(1990, 2020, samples), draw.integers(1, 13, samples)
    rows[:, TOWN] = draw.integers(0, 20, samples)
    rows[:, INCOME] = np.where(draw.random(samples) < 0.3, 0, draw.lognormal(10, 1, samples))
    rows[:, MEMBER] = draw.integers(0, 2, samples)
    missing = draw.random(samples) < 0.2
    values = np.sin(rows[:, AGE] / 8) + (rows[:, COLOUR] == 1) + (rows[:, TOWN] % 3 == 0) + 0.5 * (rows[:, INCOME] > 0)
    values += missing + 0.1 * draw.normal(size=samples)
    rows[missing, INCOME] = np.nan
    rows[::17, COLOUR] = np.nan
    rows[::13, TOWN] = -1
    return rows, values.astype(np.float32)


def mixed_table(kind: str = "classification", samples: int = 400) -> Dataset:
    """Data set of such rows: three quarters to train on, the rest to validate but for ten to test."""
    rows, values = mixed_rows(samples)
    high = values > np.median(values)
    targets = {
        "classification": high.astype(np.int64),
        "multilabel": np.stack([high, np.nan_to_num(rows[:, INCOME]) > 20_000], 1).astype(np.uint8),
        "regression": 1000 * values[:, None],
    }[kind]
    split = np.repeat(np.array([0, 1, 2], np.uint8), [samples * 3 // 4, samples // 4 - 10, 10])
    moments = (0.0,) * WIDTH, (1.0,) * WIDTH
    return Dataset("mixed", rows, targets, split, TASKS[kind], *moments, kind="table", columns=COLUMNS)


def raw_columns(rows: Float32s) -> dict[str, NDArray[Any]]:
    """Return encoded rows as the raw columns (rows, 1) of an exported graph: text, and days since 1970-01-01."""
    columns: dict[str, NDArray[Any]] = {}
    for column, place in column_places(COLUMNS):
        values = rows[:, place]
        if column.kind == "date":
            months = (values[:, 0] - 1970) * 12 + values[:, 1] - 1
            columns[column.name] = months.astype("M8[M]").astype("M8[D]").astype(np.float64)[:, np.newaxis]
        elif column.kind == "category":
            texts = ["" if np.isnan(i) else "unheard of" if i < 0 else column.categories[int(i)] for i in values[:, 0]]
            columns[column.name] = np.array(texts, object)[:, np.newaxis]
        else:
            columns[column.name] = values
    return columns
