"""How good answers are, as pure functions of arrays: what a member, and an ensemble, is judged by.

`labels` are integers (samples,), `probabilities` (samples, classes); everything is computed in double.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Split

FLOOR = 1e-15
"""Probabilities below it count as it, so that one sure mistake does not cost infinity."""

Ints = NDArray[np.int64]


def true_class(probabilities: NDArray[Any], labels: Ints) -> NDArray[Any]:
    """Probability of the true class: (..., samples, classes) to (..., samples), of the same dtype."""
    return probabilities[..., np.arange(len(labels)), labels]


def cross_entropy(probabilities: NDArray[Any], labels: Ints | None = None) -> float:
    """Mean negative logarithm of the true class's probability, in nats.

    Without `labels`, `probabilities` are already those of the true class, (samples,).
    """
    truth = probabilities if labels is None else true_class(probabilities, labels)
    return float(-np.log(np.maximum(truth.astype(np.float64), FLOOR)).mean())


def accuracy(probabilities: NDArray[Any], labels: Ints) -> float:
    """Share of samples whose likeliest class (ties: the lowest) is the true one."""
    return float((probabilities.argmax(axis=-1) == labels).mean())


def macro_f1(probabilities: NDArray[Any], labels: Ints) -> float:
    """F1 of each class, averaged over the classes that occur among labels or answers."""
    classes = probabilities.shape[-1]
    answers = probabilities.argmax(axis=-1)
    hits = np.bincount(labels[answers == labels], minlength=classes)
    both = np.bincount(labels, minlength=classes) + np.bincount(answers, minlength=classes)
    return float((2.0 * hits[both > 0] / both[both > 0]).mean())


def losses(probabilities: NDArray[Any], labels: Ints, split: Split = "valid") -> dict[str, float]:
    """The figures a `Member` keeps of a split: `valid_cross_entropy`, `valid_accuracy`, `valid_macro_f1`."""
    return {
        f"{split}_cross_entropy": cross_entropy(probabilities, labels),
        f"{split}_accuracy": accuracy(probabilities, labels),
        f"{split}_macro_f1": macro_f1(probabilities, labels),
    }
