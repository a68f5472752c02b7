"""Combiners of members' predictions: (members, samples, classes) to (samples, classes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.tasks.combiners import mean, median, one_hot, vote, weighted
from ripieno.types import Combiner, Floats

__all__ = ["combine", "mean", "median", "one_hot", "vote", "weighted"]


def combine(predictions: NDArray[Any], weights: Sequence[float] | None = None, combiner: Combiner = "mean") -> Floats:
    """Combine `predictions` (members, samples, classes) by the combiner's name.

    `weights` (members,), not negative, are used by "weighted" and "vote" only; None means equal weights. Raises
    SelectionError if the combiner is unknown or the weights are invalid.
    """
    count = len(predictions)
    shares = np.full(count, 1.0 / max(count, 1)) if weights is None else np.asarray(weights, dtype=np.float64)
    if count == 0 or shares.shape != (count,) or not np.isfinite(shares).all() or shares.min() < 0 or not shares.any():
        raise SelectionError(f"{len(shares)} weights for {count} members: expected one each, none negative, not all 0")
    if combiner == "mean":
        return mean(predictions)
    if combiner == "weighted":
        return weighted(predictions, shares)
    if combiner == "vote":
        return vote(predictions, shares)
    if combiner == "median":
        return np.asarray(median(predictions), np.float64)
    raise SelectionError(f"unknown combiner {combiner!r}: expected mean, weighted, vote or median")
