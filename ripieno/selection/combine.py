"""How members answer together: (members, samples, classes) to (samples, classes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.types import Combiner

Floats = NDArray[np.float64]


def combine(predictions: NDArray[Any], weights: Sequence[float] | None = None, combiner: Combiner = "mean") -> Floats:
    """Combine `predictions` (members, samples, classes) by the combiner's name.

    `weights` (members,), positive, matter to "weighted" and "vote" only; None: equal ones. Raises SelectionError when
    there is no such combiner or the weights do not fit.
    """
    count = len(predictions)
    shares = np.full(count, 1.0 / max(count, 1)) if weights is None else np.asarray(weights, dtype=np.float64)
    if count == 0 or shares.shape != (count,) or not np.isfinite(shares).all() or shares.min() < 0 or not shares.any():
        raise SelectionError(f"{len(shares)} weights for {count} members: one a member, none negative, not all 0")
    if combiner == "mean":
        return mean(predictions)
    if combiner == "weighted":
        return weighted(predictions, shares)
    if combiner == "vote":
        return vote(predictions, shares)
    if combiner == "median":
        return median(predictions)
    raise SelectionError(f"no combiner {combiner!r}; there are: mean, weighted, vote, median")


def mean(predictions: NDArray[Any]) -> Floats:
    """The simple average, the paper's rule (section 2.1)."""
    total: Floats = np.add.reduce(predictions, axis=0, dtype=np.float64)
    return total / len(predictions)


def weighted(predictions: NDArray[Any], weights: NDArray[np.float64]) -> Floats:
    """The average with weights (members,), which need not sum to one."""
    return np.asarray(np.tensordot(weights / weights.sum(), predictions.astype(np.float64), axes=1), dtype=np.float64)


def one_hot(predictions: NDArray[Any]) -> NDArray[np.float32]:
    """One at each sample's likeliest class (ties: the lowest), else zero; same shape."""
    hot = np.zeros(predictions.shape, dtype=np.float32)
    np.put_along_axis(hot, predictions.argmax(axis=-1)[..., None], 1.0, axis=-1)
    return hot


def vote(predictions: NDArray[Any], weights: NDArray[np.float64]) -> Floats:
    """Shares of the votes that each class gets."""
    return weighted(one_hot(predictions), weights)


def median(predictions: NDArray[Any]) -> Floats:
    """The median of each class, scaled so that a sample's classes sum to one (all-zero medians: uniform)."""
    middle: Floats = np.median(predictions.astype(np.float64), axis=0)
    total = middle.sum(axis=-1, keepdims=True)
    return np.where(total > 0, middle / np.where(total > 0, total, 1.0), 1.0 / middle.shape[-1])
