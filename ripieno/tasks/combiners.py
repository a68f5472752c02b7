"""Combiners of members' predictions: (members, samples, *output) to (samples, *output).

Selection, reports, the engine and the exported graph share this one definition, so that what is scored is what is
served: predictions of any type are combined in float32, as the engine has them. Votes are added in double, whose
rounding errors single precision drops, so that classes with equal votes are equal in any order of the members.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.types import Combiner, Ensemble, Float32s, Floats, OutputActivation

MOST = 256
"""Largest sum of integer weights."""
ROUNDING = 1.2e-7
"""Relative rounding error of a float32 weight."""
SMALL = 1 << 16
"""Largest array, in numbers, for which the call overhead exceeds the computation."""


def combine(
    predictions: NDArray[Any],
    weights: Sequence[float] | NDArray[Any] | None = None,
    combiner: Combiner = "mean",
    activation: OutputActivation = "softmax",
) -> Float32s:
    """Combine the members' predictions (members, samples, *output) by the combiner's name into float32.

    `weights` (members,), not negative, are used by "weighted" and "vote" only, and need not sum to 1; None means equal
    weights. With the `activation` "softmax" the medians of a sample are scaled to sum 1. Raises SelectionError if the
    combiner is unknown or the weights are invalid.
    """
    predictions = np.asarray(predictions, np.float32)
    if combiner == "median":
        return _scaled_median(predictions) if activation == "softmax" else np.median(predictions, axis=0)
    equal = weights is None or combiner == "mean"
    given = _equal_weights(len(predictions)) if equal else np.asarray(weights, np.float64)
    counts = whole_weights(given)
    if len(counts) != len(predictions):
        raise SelectionError(f"{len(counts)} weights for {len(predictions)} members: expected one for each")
    if combiner == "vote":
        return _vote(predictions, given)
    if combiner not in ("mean", "weighted"):
        raise SelectionError(f"unknown combiner {combiner!r}: expected mean, weighted, vote or median")
    if predictions.size <= SMALL and predictions.ndim > 2 and predictions.shape[2] > 1:
        # two calls give the same sum in the same order, bit for bit: NumPy adds the outermost axis row by row
        answer: Float32s = np.add.reduce(predictions * counts.reshape(-1, *[1] * (predictions.ndim - 1)), 0)
    else:
        answer = predictions[0] * counts[0]
        for index in range(1, len(counts)):
            answer += predictions[index] * counts[index]
    answer /= counts.sum()
    return answer


_equal_weights = functools.lru_cache(np.ones)


def member_shares(ensemble: Ensemble) -> Floats:
    """Return the shares (members,) of the members in what `ensemble` predicts; their sum is 1."""
    members = len(ensemble.members)
    weights = np.ones(members) if ensemble.combiner == "mean" else np.asarray(ensemble.weights, np.float64)
    return np.asarray(weights / weights.sum())


def whole_weights(weights: NDArray[Any]) -> NDArray[np.float32]:
    """Scale weights (members,) to the smallest integers in their ratio, so that tied certain members stay equal.

    If there are no such integers of sum `MOST` or less, scale the weights to sum 1. Raises SelectionError if a weight
    is negative or not finite, or all are 0.
    """
    return _whole(np.asarray(weights, np.float64).tobytes())


@functools.lru_cache(maxsize=1024)
def _whole(content: bytes) -> NDArray[np.float32]:
    weights = np.frombuffer(content, np.float64)
    if not len(weights) or not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise SelectionError(f"weights {weights.tolist()} are invalid: expected finite ones, none negative, not all 0")
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


def _vote(predictions: Float32s, weights: NDArray[np.float64]) -> Float32s:
    """Return each class's share of the votes; a member votes for its most likely class (ties: the lowest)."""
    shares = np.zeros((predictions[0].size // predictions.shape[-1], predictions.shape[-1]), np.float64)
    rows = np.arange(len(shares))
    for own, weight in zip(predictions, weights / weights.sum(), strict=True):
        shares[rows, own.argmax(axis=-1).reshape(-1)] += weight
    return shares.astype(np.float32).reshape(predictions.shape[1:])


def _scaled_median(predictions: Float32s) -> Float32s:
    """Return the median of each class, scaled so that a sample's classes sum to one.

    Where all medians are zero (members certain of different classes), return the mean of the members.
    """
    middle: Float32s = np.median(predictions, axis=0)
    total = middle.sum(axis=-1, keepdims=True)
    scaled: Float32s = np.where(total > 0, middle / np.where(total > 0, total, 1), predictions.mean(axis=0))
    return scaled
