"""Permutation importance of the columns of a table: what the loss gains where a column's values are shuffled.

Breiman, "Random forests", 2001, section 10. Columns that hold the same have a low importance each, because a model
reads the one from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Column, Floats, ProgressFunction, column_places

REPEATS = 3
"""Shuffles of a column."""
ROWS = 2000
"""Maximum number of samples that are predicted with shuffled values."""
FEWEST_ROWS = 50
"""Minimum number of these: with more columns, the last are left out."""
PREDICTED = 150_000
"""Maximum number of predictions of all columns and shuffles together, which bounds the time."""


@dataclass(frozen=True)
class ColumnImportance:
    """Increase of the loss where the values of a column are shuffled."""

    name: str
    increase: float
    """mean over the shuffles"""
    spread: float
    """half the difference between the largest and the smallest"""


@dataclass(frozen=True)
class Importances:
    """Importance of columns, the highest first."""

    columns: tuple[ColumnImportance, ...]
    samples: int
    """samples that they were measured on"""
    loss: float
    """mean of these with no value shuffled"""
    left_out: int
    """columns that were not measured, because there are too many"""


def importances(
    columns: Sequence[Column],
    inputs: NDArray[Any],
    loss: Callable[[NDArray[Any], NDArray[np.int64]], Floats],
    progress: ProgressFunction,
) -> Importances:
    """Return the importance of `columns`, whose values are the axis of `inputs` (samples, values) in their order.

    `loss(inputs, rows)` returns the losses (samples,) of inputs whose targets are those of the samples `rows`.
    """
    most = PREDICTED // REPEATS
    used = columns[: most // FEWEST_ROWS]
    count = min(len(inputs), ROWS, max(FEWEST_ROWS, most // max(1, len(used))))
    rows = np.linspace(0, len(inputs), count, endpoint=False).astype(np.int64)
    kept = np.asarray(inputs[rows])
    whole = float(loss(kept, rows).mean())
    found = []
    for done, (column, place) in enumerate(column_places(used)):
        progress("shuffling columns", done, len(used))
        generator = np.random.default_rng(done)
        shuffled = np.tile(kept, (REPEATS, 1))
        for part in np.split(shuffled, REPEATS):
            part[:, place] = kept[generator.permutation(count), place]
        increases = loss(shuffled, np.tile(rows, REPEATS)).reshape(REPEATS, count).mean(axis=1) - whole
        spread = float(increases.max() - increases.min()) / 2
        found.append(ColumnImportance(column.name, float(increases.mean()), spread))
    progress("shuffling columns", len(used), len(used))
    ordered = tuple(sorted(found, key=lambda one: (-one.increase, one.name)))
    return Importances(ordered, count, whole, len(columns) - len(used))
