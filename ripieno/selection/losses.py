"""Losses that a selection minimises, of predictions against targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks import metrics
from ripieno.tasks.metrics import METRICS, dashed_name, metric_key
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Floats

Measure = Callable[[NDArray[Any], NDArray[Any]], float]
"""Loss of predictions (samples, ...) against targets; never negative."""


def losses_of(kind: TaskKind) -> tuple[str, ...]:
    """Return the names of the losses for a kind of task, its own first; a classification also takes squared errors."""
    own = tuple(dashed_name(name) for name in kind.metrics)
    takes_squared_error = kind.activation == "softmax" and not kind.is_pixelwise
    return (*own, "squared-error") if takes_squared_error else own


def _measure(name: str) -> Measure:
    metric = METRICS[metric_key(name)]
    return lambda predictions, targets: metric.as_loss(metric.function(predictions, targets))


def _squared_distance(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    return metrics.squared_distance(predictions, _values(predictions, targets))


MEASURES: Mapping[str, Measure] = {
    **{dashed_name(name): _measure(name) for name in METRICS},
    "cross-entropy": metrics.cross_entropy,
    "squared-error": _squared_distance,
}
"""By name. The squared error is the squared distance: see `scaled_targets` for that of several targets."""


def sample_losses(loss: str, predictions: NDArray[Any], targets: NDArray[Any] | None) -> Floats | None:
    """Return the loss of each sample, whose mean is the loss; None for a loss that is no mean over samples.

    Without `targets`, `predictions` are of the true class, (samples,).
    """
    if loss == "cross-entropy":
        return _negative_logs(predictions if targets is None else metrics.true_class(predictions, targets))
    assert targets is not None  # only the cross-entropy takes rows of the true class
    if loss == "binary-cross-entropy":
        return np.asarray(_negative_logs(metrics.true_labels(predictions, targets)).mean(axis=1))
    if loss in ("accuracy", "pixel-accuracy"):
        return np.asarray(predictions.argmax(axis=1) != targets, dtype=np.float64)
    if loss not in ("squared-error", "mae"):
        return None
    residuals = (predictions.astype(np.float64) - _values(predictions, targets)).reshape(len(predictions), -1)
    return np.abs(residuals).mean(axis=1) if loss == "mae" else np.asarray((residuals * residuals).sum(axis=1))


def _negative_logs(truth: NDArray[Any]) -> Floats:
    return np.asarray(-np.log(np.maximum(truth.astype(np.float64), metrics.FLOOR)))


def _values(predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """Return the targets of a regression as they are, those of a classification as one-hot rows."""
    return targets if targets.shape == predictions.shape else one_hot_targets(targets, predictions.shape[-1])


def one_hot_targets(labels: NDArray[Any], classes: int) -> Floats:
    """Return one at the class of each sample, else zero, (samples, classes)."""
    return np.asarray(np.eye(classes)[labels])


def target_scale(targets: NDArray[Any]) -> Floats:
    """Return divisors (targets,) after which the squared distance is the task's squared error; see `metrics`.

    They are ones for a single target: its loss is in the square of its unit.
    """
    return np.asarray(np.sqrt(metrics.target_variances(targets) * targets[0].size))


def constant_loss(loss: str, targets: NDArray[Any]) -> float:
    """Return the loss of predicting the mean of `targets` (samples[, targets]) for each sample; 1 where it is 0."""
    mean = np.broadcast_to(targets.mean(axis=0), targets.shape)
    return MEASURES[loss](mean, targets) or 1.0
