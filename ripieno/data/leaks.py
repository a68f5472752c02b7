"""Columns of a table that are its target again: with one as an input, a model learns nothing from the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.registry import kind_of
from ripieno.types import Column, Float32s, Task, column_places

FEWEST = 20
"""Rows from which a column is taken for the target again."""
KNOWN = 0.9
"""Share of the rows in which such a column has a value, at least."""
SAME = 0.9999
"""Correlation, of numbers or of their ranks, from which two columns of numbers are the same in another unit."""


def leak_notes(columns: Sequence[Column], inputs: Float32s, targets: NDArray[Any], task: Task) -> list[str]:
    """Return a note for each column of encoded training rows (rows, values) that determines a target, and is no more.

    For classes and labels that is a column with one value for each of them; for numbers, one that grows or falls with a
    target, such as its logarithm.
    """
    notes = []
    matrix = targets.reshape(len(targets), -1)
    has_numbers = kind_of(task).activation == "identity"
    for column, place in column_places(columns):
        values = inputs[:, place.start]
        known = ~np.isnan(values)
        if column.kind == "date" or known.sum() < max(FEWEST, KNOWN * len(values)):
            continue
        same = _is_monotonic if has_numbers else _is_renamed
        if any(same(values[known], target[known]) for target in matrix.T):
            held = f"column {column.name!r} is the target again, in other values"
            notes.append(f"{held}; drop it (--drop) unless it is known when you predict")
    return notes


def _is_renamed(values: NDArray[Any], target: NDArray[Any]) -> bool:
    """Return whether each value stands for one class, and each class for one value."""
    own, classes = np.unique(values), np.unique(target)
    if len(own) != len(classes) or len(own) < 2:
        return False
    return len(np.unique(np.stack([values, target]), axis=1).T) == len(own)


def _is_monotonic(values: NDArray[Any], target: NDArray[Any]) -> bool:
    """Return whether numbers grow or fall together."""
    pairs = ((values, target), tuple(np.unique(one, return_inverse=True)[1] for one in (values, target)))
    return any(abs(_correlation(*pair)) > SAME for pair in pairs)


def _correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the correlation of numbers; 0 where one of them is constant."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    return float(np.corrcoef(first, second)[0, 1]) if first.std() and second.std() else 0.0
