"""Metrics of predictions, as pure functions of arrays: those of members and of ensembles.

`targets` and `predictions` are those of a task: classes (samples,) and `probabilities` (samples, classes); 0 and 1
(samples, labels) and probabilities of the same shape; values and predicted values, (samples,) or (samples, targets);
masks and probabilities of pixels, see `pixels`.
Everything is computed in double.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks import pixels
from ripieno.tasks.calibration_error import brier_score, calibration_error
from ripieno.types import Ensemble, Floats, Ints, Split

FLOOR = 1e-15
"""Lower clip of probabilities, so that the loss of one certain mistake is finite."""
THRESHOLD = 0.5
"""Probability from which a label is predicted where no threshold was fitted."""


def true_class(probabilities: NDArray[Any], labels: NDArray[np.integer]) -> NDArray[Any]:
    """Return the probability of the true class: (..., samples, classes) to (..., samples), of the same dtype."""
    return probabilities[..., np.arange(len(labels)), labels]


def true_labels(probabilities: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """Return the probability of the true value of each label, p or 1 - p, of the same shape and dtype."""
    return np.where(targets, probabilities, 1 - probabilities)


def cross_entropy(probabilities: NDArray[Any], labels: Ints | None = None) -> float:
    """Return the mean negative logarithm of the true class's probability, in nats.

    Without `labels`, `probabilities` are already those of the true class, (samples,). Masks as `labels` give the mean
    over their counted pixels.
    """
    if labels is not None and labels.ndim > 1:
        return pixels.pixel_cross_entropy(pixels.pixel_likelihood(probabilities, labels))
    truth = probabilities if labels is None else true_class(probabilities, labels)
    return float(-np.log(np.maximum(truth.astype(np.float64), FLOOR)).mean())


def binary_cross_entropy(probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean over samples and labels of the negative logarithm of the true value's probability, in nats."""
    return cross_entropy(true_labels(probabilities, targets))


def accuracy(probabilities: NDArray[Any], labels: Ints) -> float:
    """Return the fraction of samples for which the most likely class (ties: the lowest) is the true one."""
    return float((probabilities.argmax(axis=-1) == labels).mean())


def macro_f1(probabilities: NDArray[Any], targets: NDArray[Any], thresholds: Sequence[float] = ()) -> float:
    """Return the mean F1 over the classes or labels that occur among targets or predictions; 1 where none occurs.

    A class is predicted where it is the most likely one, a label from its threshold on; see `predicted_labels`.
    """
    if targets.ndim == 1:
        classes = probabilities.shape[-1]
        predicted = probabilities.argmax(axis=-1)
        hits = np.bincount(targets[predicted == targets], minlength=classes)
        both = np.bincount(targets, minlength=classes) + np.bincount(predicted, minlength=classes)
    else:
        named = predicted_labels(probabilities, thresholds)
        hits = np.count_nonzero(named & (targets > 0), axis=0)
        both = np.count_nonzero(targets, axis=0) + np.count_nonzero(named, axis=0)
    return float((2.0 * hits[both > 0] / both[both > 0]).mean()) if both.any() else 1.0


def predicted_labels(probabilities: NDArray[Any], thresholds: Sequence[float] = ()) -> NDArray[np.uint8]:
    """Return 1 where a label's probability is at least its threshold, else 0; same shape (samples, labels).

    `thresholds` (labels,); empty: `THRESHOLD` for each. They are compared in double, in which they were fitted.
    """
    limits = np.asarray(thresholds if len(thresholds) else THRESHOLD, dtype=np.float64)
    return np.asarray(probabilities >= limits, dtype=np.uint8)


def mean_average_precision(probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean average precision of the labels (columns) that occur among the targets; 1 where none occurs."""
    columns = np.flatnonzero(targets.any(axis=0))
    values = [_average_precision(probabilities[:, column], targets[:, column]) for column in columns]
    return float(np.mean(values)) if values else 1.0


def _average_precision(probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the sum over thresholds of the precision times the gain of recall; equal probabilities are one step."""
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = np.cumsum(targets[order], dtype=np.int64)[ends]
    return float((hits / (ends + 1) * np.diff(hits, prepend=0)).sum() / hits[-1])


def target_variances(targets: NDArray[Any]) -> Floats:
    """Return the variance (targets,) of each of several targets, 1 for a constant one; ones for a single target.

    They are the divisors of `squared_error`: with one target it is in the square of the target's unit, with several
    each counts alike.
    """
    if targets.ndim == 1 or targets.shape[1] == 1:
        return np.ones(targets.shape[1:])
    variances = targets.var(axis=0, dtype=np.float64)
    return np.where(variances > 0, variances, 1.0)


def squared_error(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean squared error, the mean over several targets each divided by its variance.

    The variances are those of `targets`: of all samples that the figure is about, so that members, ensembles and the
    selection agree on the same samples.
    """
    residuals = predictions.astype(np.float64) - targets
    return float(((residuals * residuals).mean(axis=0) / target_variances(targets)).mean())


def squared_distance(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean over samples of the squared distance; both are (samples,) or (samples, outputs)."""
    residuals = predictions.astype(np.float64) - targets
    return float((residuals * residuals).sum() / len(residuals))


def rmse(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the root of the mean squared error, in the target's unit; of several targets the mean."""
    residuals = predictions.astype(np.float64) - targets
    return float(np.sqrt((residuals * residuals).mean(axis=0)).mean())


def mae(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean absolute error, in the target's unit; of several targets the mean."""
    return float(np.abs(predictions.astype(np.float64) - targets).mean())


def r2(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the share of the variance that is explained, of several targets the mean; a constant one: 1 or 0.

    It is 1 for a constant target that is predicted exactly, else 0, as in scikit-learn.
    """
    residuals = predictions.astype(np.float64) - targets
    left = np.atleast_1d((residuals * residuals).mean(axis=0))
    variances = np.atleast_1d(targets.var(axis=0, dtype=np.float64))
    unexplained = np.where(variances > 0, left / np.where(variances > 0, variances, 1.0), left > 0)
    return float(1.0 - unexplained.mean())


def normal_log_loss(predictions: NDArray[Any], targets: NDArray[Any], deviation: NDArray[Any] | None = None) -> float:
    """Return the mean negative log-likelihood of `targets`, normal about `predictions`, in nats; targets count alike.

    `deviation` (samples, targets) is the standard deviation, by default the root of the mean squared error of each
    target. A unit that is ten times smaller adds the logarithm of 10.
    """
    squares = (np.asarray(predictions, np.float64) - targets) ** 2
    variance = squares.mean(axis=0) if deviation is None else np.asarray(deviation, np.float64) ** 2
    variance = np.maximum(variance, float(np.finfo(np.float64).tiny))
    return float(0.5 * (np.log(2 * np.pi * variance) + squares / variance).mean())


def mean_return(returns: NDArray[Any], seeds: NDArray[Any]) -> float:  # noqa: ARG001  as all metrics
    """Return the mean return of episodes (episodes, 1); `seeds`, with which they were reset, do not enter."""
    return float(returns.mean(dtype=np.float64))


def negative_return(returns: NDArray[Any], seeds: NDArray[Any]) -> float:
    """Return minus the mean return of episodes, the loss of policies."""
    return -mean_return(returns, seeds)


@dataclass(frozen=True)
class TaskMetric:
    """A metric of predictions (samples, ...) and targets, its direction and its display."""

    title: str
    function: Callable[[NDArray[Any], NDArray[Any]], float]
    higher_is_better: bool = False
    in_percent: bool = False

    def as_loss(self, value: float) -> float:
        """Return the loss that a selection minimises: 1 - value where higher is better."""
        return 1.0 - value if self.higher_is_better else value

    def format(self, value: float) -> str:
        """Return the value as shown: in percent, or with four digits after the point."""
        return f"{100 * value:.2f} %" if self.in_percent else f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"


METRICS: Mapping[str, TaskMetric] = {
    "cross_entropy": TaskMetric("cross-entropy", cross_entropy),
    "accuracy": TaskMetric("accuracy", accuracy, higher_is_better=True, in_percent=True),
    "macro_f1": TaskMetric("macro-F1", macro_f1, higher_is_better=True, in_percent=True),
    "binary_cross_entropy": TaskMetric("binary cross-entropy", binary_cross_entropy),
    "mean_average_precision": TaskMetric("mAP", mean_average_precision, higher_is_better=True, in_percent=True),
    "mean_iou": TaskMetric("mean IoU", pixels.mean_iou, higher_is_better=True, in_percent=True),
    "mean_dice": TaskMetric("mean Dice", pixels.mean_dice, higher_is_better=True, in_percent=True),
    "pixel_accuracy": TaskMetric("pixel accuracy", pixels.pixel_accuracy, higher_is_better=True, in_percent=True),
    "squared_error": TaskMetric("squared error", squared_error),
    "rmse": TaskMetric("RMSE", rmse),
    "mae": TaskMetric("MAE", mae),
    "r2": TaskMetric("R2", r2, higher_is_better=True),
    "normal_log_loss": TaskMetric("normal negative log likelihood", normal_log_loss),
    "negative_return": TaskMetric("negative return", negative_return),
    "return": TaskMetric("return", mean_return, higher_is_better=True),
    "mean_loss": TaskMetric("mean loss", mean_return),  # of a command: its results are losses
    "brier_score": TaskMetric("Brier score", brier_score),
    "calibration_error": TaskMetric("calibration error", calibration_error, in_percent=True),
}
"""By name in `Member.losses`, without the split; several kinds of task may share one. On the command line and in
`Task.metric` a name has dashes: see `metric_key`."""


def metric_key(name: str) -> str:
    """Return the key in `METRICS` of a name with dashes: `macro-f1` is `macro_f1`."""
    return name.replace("-", "_")


def dashed_name(key: str) -> str:
    """Return the name with dashes of a key in `METRICS`: `macro_f1` is `macro-f1`."""
    return key.replace("_", "-")


def format_expected(ensemble: Ensemble) -> str:
    """Return the expected loss with its standard error, as a score where that was selected by; `-`: none."""
    loss, error = ensemble.expected_loss, ensemble.expected_loss_error
    if loss is None or error is None:
        return "-"
    metric = METRICS[metric_key(ensemble.loss)]
    value = 1 - loss if metric.higher_is_better else loss
    return f"{100 * value:.2f} ± {100 * error:.2f} %" if metric.in_percent else f"{value:.4f} ± {error:.4f}"


def scores(probabilities: NDArray[Any], labels: Ints) -> dict[str, float]:
    """Return `cross_entropy`, `accuracy` and `macro_f1`."""
    return {name: METRICS[name].function(probabilities, labels) for name in ("cross_entropy", "accuracy", "macro_f1")}


def losses(probabilities: NDArray[Any], labels: Ints, split: Split = "valid") -> dict[str, float]:
    """Return the metrics of a split in a `Member`: `valid_cross_entropy`, `valid_accuracy`, `valid_macro_f1`."""
    return {f"{split}_{name}": value for name, value in scores(probabilities, labels).items()}
