"""Quality of predictions by class, label or target, and by sample. Pure functions of arrays.

`predictions` are (samples, *task.output), `targets` as in `Dataset`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.metrics import (
    FLOOR,
    THRESHOLD,
    mae,
    mean_average_precision,
    predicted_labels,
    r2,
    rmse,
    target_variances,
    true_class,
    true_labels,
)
from ripieno.tasks.pixels import ClassCounts, PixelTotals
from ripieno.types import Floats, Ints, Task

Row = dict[str, str | int | float | None]
"""One class, label or target: its name, and its figures by name; None for one that is not defined."""
RowsFunction = Callable[[NDArray[Any], NDArray[Any], Task, Sequence[float]], list[Row]]
DECILES = 10


def class_rows(predictions: NDArray[Any], labels: Ints, task: Task, _thresholds: Sequence[float] = ()) -> list[Row]:
    """Return samples, precision, recall and F1 of each class."""
    classes, predicted = len(task.names), predictions.argmax(axis=1)
    counts = np.bincount(labels, minlength=classes)
    answers = np.bincount(predicted, minlength=classes)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    return [
        {"class": name, "samples": int(counts[i]), **_f1(hits[i], answers[i], counts[i])}
        for i, name in enumerate(task.names)
    ]


def label_rows(
    predictions: NDArray[Any], targets: NDArray[Any], task: Task, thresholds: Sequence[float] = ()
) -> list[Row]:
    """Return samples, threshold, precision, recall, F1 and average precision of each label."""
    predicted = predicted_labels(predictions, thresholds)
    counts, answers = targets.sum(axis=0, dtype=np.int64), predicted.sum(axis=0, dtype=np.int64)
    hits = (predicted & targets).sum(axis=0, dtype=np.int64)
    return [
        {
            "label": name,
            "samples": int(counts[i]),
            "threshold": float(thresholds[i] if len(thresholds) else THRESHOLD),
            **_f1(hits[i], answers[i], counts[i]),
            "average precision": mean_average_precision(predictions[:, [i]], targets[:, [i]]),
        }
        for i, name in enumerate(task.names)
    ]


def target_rows(
    predictions: NDArray[Any], targets: NDArray[Any], task: Task, _thresholds: Sequence[float] = ()
) -> list[Row]:
    """Return RMSE, MAE and R2 of each target."""
    columns = [(predictions[:, [i]], targets[:, [i]]) for i in range(len(task.names))]
    return [
        {"target": name, "RMSE": rmse(*pair), "MAE": mae(*pair), "R2": r2(*pair)}
        for name, pair in zip(task.names, columns, strict=True)
    ]


def mask_rows(
    predictions: NDArray[Any], masks: NDArray[Any], task: Task, _thresholds: Sequence[float] = ()
) -> list[Row]:
    """Return the rows of `pixel_rows` from predictions, which are read in blocks of samples."""
    return pixel_rows(PixelTotals.of(predictions, masks).counts.total, task)


def pixel_rows(counts: ClassCounts, task: Task) -> list[Row]:
    """Return pixels, IoU, Dice, precision and recall of each class; `counts` are those of all samples, (classes,).

    IoU and Dice are None for a class that is absent in masks and predictions.
    """
    figures = zip(task.names, counts.iou(), counts.dice(), counts.hits, counts.predicted, counts.truth, strict=True)
    return [
        {
            "class": name,
            "pixels": int(true),
            "IoU": None if np.isnan(iou) else float(iou),
            "Dice": None if np.isnan(dice) else float(dice),
            "precision": float(hits / max(1, predicted)),
            "recall": float(hits / max(1, true)),
        }
        for name, iou, dice, hits, predicted, true in figures
    ]


def _f1(hits: int, predicted: int, true: int) -> Row:
    """Return precision, recall and F1; 0 where there is no sample to divide by."""
    return {
        "precision": float(hits / max(1, predicted)),
        "recall": float(hits / max(1, true)),
        "F1": float(2 * hits / max(1, predicted + true)),
    }


ROWS: Mapping[str, RowsFunction] = {
    "classification": class_rows,
    "multilabel": label_rows,
    "regression": target_rows,
    "segmentation": mask_rows,
}
"""Function of the rows, by kind of task; its last argument are the thresholds of labels, see `Ensemble`."""


def error_by_decile(predictions: NDArray[Any], targets: NDArray[Any]) -> list[tuple[float, float, int, float, float]]:
    """Return for each decile of one target, (samples,): least and largest value, samples, RMSE and mean residual.

    A residual is the predicted value minus the true one. There are fewer deciles where there are fewer samples.
    """
    order = np.argsort(targets, kind="stable")
    parts = [part for part in np.array_split(order, DECILES) if len(part)]
    residuals = predictions.astype(np.float64) - targets
    return [
        (
            float(targets[part[0]]),
            float(targets[part[-1]]),
            len(part),
            float(np.sqrt((residuals[part] ** 2).mean())),
            float(residuals[part].mean()),
        )
        for part in parts
    ]


def _class_losses(predictions: NDArray[Any], targets: NDArray[Any]) -> Floats:
    return -np.log(np.maximum(true_class(predictions, targets).astype(np.float64), FLOOR))


def _label_losses(predictions: NDArray[Any], targets: NDArray[Any]) -> Floats:
    losses: Floats = -np.log(np.maximum(true_labels(predictions, targets).astype(np.float64), FLOOR))
    return np.asarray(losses.mean(axis=1))


def _target_losses(predictions: NDArray[Any], targets: NDArray[Any]) -> Floats:
    losses = (predictions.astype(np.float64) - targets) ** 2 / target_variances(targets)
    return np.asarray(losses.mean(axis=1))


def _mask_losses(predictions: NDArray[Any], targets: NDArray[Any]) -> Floats:
    totals = PixelTotals.of(predictions, targets)
    return totals.losses / np.maximum(1, totals.pixels)


SAMPLE_LOSSES: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], Floats]] = {
    "classification": _class_losses,
    "multilabel": _label_losses,
    "regression": _target_losses,
    "segmentation": _mask_losses,
}
"""Loss of each sample, (samples,), by kind of task: the ranking metric is its mean, or that over pixels."""


def describe_target(target: Any, task: Task) -> str:
    """Return the target of a sample, or its predicted labels or values, (*task.output,), as a short text."""
    if target.dtype.kind == "f":
        return ", ".join(f"{value:.4g}" for value in target)
    return ", ".join(name for name, present in zip(task.names, target, strict=True) if present) or "no label"
