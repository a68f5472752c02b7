"""Disagreement of members: the weighted standard deviation of their predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Float32s, Floats


def deviation(predictions: NDArray[Any], weights: Floats) -> Float32s:
    """Return the standard deviation of `predictions` (members, ...) over the members; `weights` (members,) sum to 1.

    Double precision is used, because squares of large finite numbers are finite in it.
    """
    exact = predictions.astype(np.float64)
    mean = np.tensordot(weights, exact, 1)
    return np.sqrt(np.tensordot(weights, (exact - mean) ** 2, 1)).astype(np.float32)
