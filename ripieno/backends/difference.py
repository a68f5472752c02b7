"""Difference of a backend's predictions from those of its reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import OutputActivation


def largest_difference(predictions: NDArray[Any], expected: NDArray[Any], activation: OutputActivation) -> float:
    """Return the largest difference of `predictions` (samples, outputs) from `expected`, of the same shape.

    That of probabilities is absolute. Values have a unit: the differences of an output are divided by the largest of
    its expected values.
    """
    differences = np.abs(predictions - expected).max(axis=0)
    if activation == "identity":
        differences = differences / np.maximum(np.abs(expected).max(axis=0), np.finfo(np.float32).tiny)
    return float(differences.max())
