"""How members' probabilities become one answer. Pure; the sum runs in member order, whatever order they came in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Combiner

Array = NDArray[np.float32]


def combine(kind: Combiner, predictions: Array, weights: Array) -> Array:
    """Answer (samples, classes) of `predictions` (members, samples, classes); `weights` (members,) sum to 1.

    `mean` and `weighted` are the weighted mean (the mean has equal weights), `vote` is each class's share of the
    members' weighted votes, `median` the median per class, scaled to sum 1.
    """
    if kind == "vote":
        ballots = np.zeros(predictions.shape[1:], np.float32)
        rows = np.arange(len(ballots))
        for row, weight in zip(predictions.argmax(2), weights, strict=True):
            ballots[rows, row] += weight
        return ballots
    if kind == "median":
        middle = np.median(predictions, axis=0)
        total = middle.sum(axis=1, keepdims=True)
        return np.asarray(np.where(total > 0, middle / np.where(total > 0, total, 1), predictions.mean(0)), np.float32)
    answer: Array = predictions[0] * weights[0]
    for index in range(1, len(weights)):
        answer += predictions[index] * weights[index]
    return answer


def spread(predictions: Array, answer: Array, weights: Array) -> Array:
    """How much the members disagree, (samples,): the weighted standard deviation of their probabilities of the class
    that the ensemble answers."""
    label = answer.argmax(1)
    chosen = np.take_along_axis(predictions, label[None, :, None], 2)[:, :, 0]
    away: Array = np.sqrt(weights @ (chosen - weights @ chosen) ** 2, dtype=np.float32)
    return away
