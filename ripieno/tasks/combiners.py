"""Combiners of members' predictions: (members, samples, classes) to (samples, classes).

Selection, the engine and the exported graph share this one definition. Medians are computed in the type of the
predictions, means in double; the engine's predictions are float32. Votes are added in double and rounded to `GRAIN`, so
that classes with equal votes are equal in any order of the members.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAIN = 2.0**-30
"""Unit of vote shares: far above the rounding error of the additions, far below any member's weight."""
MOST = 256
"""Largest sum of integer weights."""
ROUNDING = 1.2e-7
"""Relative rounding error of a float32 weight."""


def mean(predictions: NDArray[Any]) -> NDArray[np.float64]:
    """Return the simple average, the paper's rule (section 2.1)."""
    total: NDArray[np.float64] = np.add.reduce(predictions, axis=0, dtype=np.float64)
    return total / len(predictions)


def weighted(predictions: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Return the average with weights (members,), which need not sum to one."""
    counts = whole_weights(weights).astype(np.float64)
    summed = np.tensordot(counts, predictions.astype(np.float64), axes=1)
    return np.asarray(summed / counts.sum(), dtype=np.float64)


def whole_weights(weights: NDArray[Any]) -> NDArray[np.float32]:
    """Scale weights (members,) to the smallest integers in their ratio, so that tied certain members stay equal.

    If there are no such integers of sum `MOST` or less, scale the weights to sum 1.
    """
    return _whole(np.asarray(weights, np.float64).tobytes())


@functools.lru_cache(maxsize=1024)
def _whole(content: bytes) -> NDArray[np.float32]:
    weights = np.frombuffer(content, np.float64)
    shares = weights / weights.sum()
    sums = np.arange(1, MOST + 1)[:, None]
    near = np.rint(shares * sums)
    fits = (np.abs(shares * sums - near) <= ROUNDING * sums).all(axis=1)
    scaled: NDArray[np.float32] = (near[fits.argmax()] if fits.any() else shares).astype(np.float32)
    scaled.flags.writeable = False
    return scaled


def one_hot(predictions: NDArray[Any]) -> NDArray[np.float32]:
    """Return one at each sample's most likely class (ties: the lowest), else zero; same shape."""
    hot = np.zeros(predictions.shape, dtype=np.float32)
    np.put_along_axis(hot, predictions.argmax(axis=-1)[..., None], 1.0, axis=-1)
    return hot


def vote(predictions: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Return each class's share of the votes; a member votes for its most likely class (ties: the lowest)."""
    weights = np.asarray(weights, np.float64)
    shares = np.zeros(predictions.shape[1:], np.float64)
    rows = np.arange(len(shares))
    for row, weight in zip(predictions.argmax(axis=2), weights / weights.sum(), strict=True):
        shares[rows, row] += weight
    return np.round(shares / GRAIN) * GRAIN


def median(predictions: NDArray[Any]) -> NDArray[Any]:
    """Return the median of each class, scaled so that a sample's classes sum to one.

    Where all medians are zero (members certain of different classes), return the mean of the members.
    """
    middle: NDArray[Any] = np.median(predictions, axis=0)
    total = middle.sum(axis=-1, keepdims=True)
    scaled: NDArray[Any] = np.where(total > 0, middle / np.where(total > 0, total, 1), predictions.mean(axis=0))
    return scaled
