"""Metrics of predictions, as pure functions of arrays: those of members and of ensembles.

`labels` are integers (samples,), `probabilities` (samples, classes); everything is computed in double.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Ints, Split

FLOOR = 1e-15
"""Lower clip of probabilities, so that the loss of one certain mistake is finite."""


def true_class(probabilities: NDArray[Any], labels: NDArray[np.integer]) -> NDArray[Any]:
    """Return the probability of the true class: (..., samples, classes) to (..., samples), of the same dtype."""
    return probabilities[..., np.arange(len(labels)), labels]


def cross_entropy(probabilities: NDArray[Any], labels: Ints | None = None) -> float:
    """Return the mean negative logarithm of the true class's probability, in nats.

    Without `labels`, `probabilities` are already those of the true class, (samples,).
    """
    truth = probabilities if labels is None else true_class(probabilities, labels)
    return float(-np.log(np.maximum(truth.astype(np.float64), FLOOR)).mean())


def accuracy(probabilities: NDArray[Any], labels: Ints) -> float:
    """Return the fraction of samples for which the most likely class (ties: the lowest) is the true one."""
    return float((probabilities.argmax(axis=-1) == labels).mean())


def macro_f1(probabilities: NDArray[Any], labels: Ints) -> float:
    """Return the mean F1 over the classes that occur among labels or predictions."""
    classes = probabilities.shape[-1]
    predicted = probabilities.argmax(axis=-1)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    both = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float((2.0 * hits[both > 0] / both[both > 0]).mean())


def squared_error(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean over samples of the squared distance; both are (samples,) or (samples, outputs)."""
    residuals = predictions.astype(np.float64) - targets
    return float((residuals * residuals).sum() / len(residuals))


def scores(probabilities: NDArray[Any], labels: Ints) -> dict[str, float]:
    """Return `cross_entropy`, `accuracy` and `macro_f1`."""
    return {measure.__name__: measure(probabilities, labels) for measure in (cross_entropy, accuracy, macro_f1)}


def losses(probabilities: NDArray[Any], labels: Ints, split: Split = "valid") -> dict[str, float]:
    """Return the metrics of a split in a `Member`: `valid_cross_entropy`, `valid_accuracy`, `valid_macro_f1`."""
    return {f"{split}_{name}": value for name, value in scores(probabilities, labels).items()}
