"""How members answer together: (members, samples, classes) to (samples, classes).

One definition for all that combine: what selection scores, the engine answers and the exported graph computes. Means
and medians are computed in the type of the predictions that come; the engine's are float32. Votes are added in double
and rounded to `GRAIN`, so that classes with equal votes are equal, in whatever order the members come.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAIN = 2.0**-30
"""Shares of votes are multiples of it: far above what additions round away, far below any member's weight."""
MOST = 256
"""Largest sum of whole numbers that weights are written as."""
ROUNDING = 1.2e-7
"""Relative error of a weight that was kept as float32."""


def mean(predictions: NDArray[Any]) -> NDArray[np.float64]:
    """The simple average, the paper's rule (section 2.1)."""
    total: NDArray[np.float64] = np.add.reduce(predictions, axis=0, dtype=np.float64)
    return total / len(predictions)


def weighted(predictions: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """The average with weights (members,), which need not sum to one."""
    counts = whole_weights(weights).astype(np.float64)
    summed = np.tensordot(counts, predictions.astype(np.float64), axes=1)
    return np.asarray(summed / counts.sum(), dtype=np.float64)


def whole_weights(weights: NDArray[Any]) -> NDArray[np.float32]:
    """Scale weights (members,) to the smallest whole numbers in their ratio, so that sure members that tie stay equal.

    Weights without such numbers of sum `MOST` or less become shares of sum 1.
    """
    return _whole(np.asarray(weights, np.float64).tobytes())


@functools.lru_cache(maxsize=1024)
def _whole(content: bytes) -> NDArray[np.float32]:
    weights = np.frombuffer(content, np.float64)
    shares = weights / weights.sum()
    sums = np.arange(1, MOST + 1)[:, None]
    near = np.rint(shares * sums)
    fits = (np.abs(shares * sums - near) <= ROUNDING * sums).all(axis=1)
    found: NDArray[np.float32] = (near[fits.argmax()] if fits.any() else shares).astype(np.float32)
    found.flags.writeable = False
    return found


def one_hot(predictions: NDArray[Any]) -> NDArray[np.float32]:
    """One at each sample's likeliest class (ties: the lowest), else zero; same shape."""
    hot = np.zeros(predictions.shape, dtype=np.float32)
    np.put_along_axis(hot, predictions.argmax(axis=-1)[..., None], 1.0, axis=-1)
    return hot


def vote(predictions: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Shares of the votes that each class gets; a member's vote is its likeliest class (ties: the lowest)."""
    weights = np.asarray(weights, np.float64)
    ballots = np.zeros(predictions.shape[1:], np.float64)
    rows = np.arange(len(ballots))
    for row, weight in zip(predictions.argmax(axis=2), weights / weights.sum(), strict=True):
        ballots[rows, row] += weight
    return np.round(ballots / GRAIN) * GRAIN


def median(predictions: NDArray[Any]) -> NDArray[Any]:
    """The median of each class, scaled so that a sample's classes sum to one.

    Where all medians are zero (members sure of different classes), the mean of the members.
    """
    middle: NDArray[Any] = np.median(predictions, axis=0)
    total = middle.sum(axis=-1, keepdims=True)
    scaled: NDArray[Any] = np.where(total > 0, middle / np.where(total > 0, total, 1), predictions.mean(axis=0))
    return scaled
