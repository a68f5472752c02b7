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
    flat = predictions.reshape(len(predictions), -1).astype(np.float64)
    deviations: Float32s = np.sqrt(weights @ (flat - weights @ flat) ** 2).astype(np.float32)
    return deviations.reshape(predictions.shape[1:])
