"""Predictions that an ensemble is selected from: as given, calibrated, and without the samples of a fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.selection.validation import Loss, Predictions
from ripieno.tasks import metrics
from ripieno.tasks.calibration import (
    MemberCalibration,
    apply_temperature,
    calibrate_member,
    fit_temperature,
    without_fold,
)
from ripieno.tasks.combiners import combine
from ripieno.types import Combiner, Floats


@dataclass(frozen=True, eq=False)
class MemberData:
    """Checked predictions and labels of all selection samples, and the temperatures of the members.

    Without `calibrations` all temperatures are 1. With a `fold`, a mask of held samples, the temperatures are those of
    the remaining samples, which are the ones to select from.
    """

    predictions: Predictions
    """one array per member: true-class (samples,), (samples, classes), or of a regression (samples[, outputs])"""
    labels: NDArray[Any] | None
    """classes or targets (samples, ...); None with predictions of the true class"""
    calibrations: Sequence[MemberCalibration] | None = None
    fold: NDArray[np.bool_] | None = None

    @property
    def samples(self) -> int:
        """Number of samples, those of the fold included."""
        return len(self.predictions[0])

    def without(self, fold: NDArray[np.bool_]) -> MemberData:
        """Return the data without the samples of a `fold` (samples,), with temperatures fitted without them."""
        if self.calibrations is None:
            return replace(self, fold=fold)
        refitted = []
        for temperature, rows in self.calibrations:
            if temperature != 1.0:
                temperature, truth = without_fold(rows, temperature, fold)
                rows = rows._replace(truth=truth)
            refitted.append(MemberCalibration(temperature, rows))
        return replace(self, calibrations=refitted, fold=fold)

    def kept(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of `values` (samples, ...) to select from."""
        return values if self.fold is None else values[~self.fold]

    def temperature(self, member: int) -> float:
        """Return the temperature of a member."""
        return 1.0 if self.calibrations is None else self.calibrations[member].temperature

    def truth(self) -> Predictions:
        """Return the true-class probabilities to select from, one array (samples,) per member."""
        if self.calibrations is not None:
            return [self.kept(calibration.rows.truth) for calibration in self.calibrations]
        if self.labels is None:
            return self.predictions if self.fold is None else [self.kept(row) for row in self.predictions]
        labels = self.kept(self.labels)
        return [metrics.true_class(self.kept(p), labels) for p in self.predictions]

    def calibrated(self, member: int) -> NDArray[Any]:
        """Return the predictions of a member at its temperature, for all samples."""
        return apply_temperature(np.asarray(self.predictions[member]), self.temperature(member))

    def combined(self, members: Sequence[int], combiner: Combiner) -> NDArray[Any]:
        """Return what the ensemble of `members`, which may repeat, predicts for all samples, at the temperature 1."""
        counts = Counter(members)
        predictions = np.stack([self.calibrated(member) for member in counts])
        return combine_rows(predictions, list(counts.values()), combiner)

    def ensemble_temperature(self, combined: NDArray[Any]) -> float:
        """Return the temperature of an ensemble with `combined` predictions; 1 without calibration."""
        if self.calibrations is None or self.labels is None:
            return 1.0
        return fit_temperature(self.kept(combined), self.kept(self.labels))


def combine_rows(predictions: NDArray[Any], weights: Sequence[float], combiner: Combiner) -> NDArray[Any]:
    """Combine `predictions` (members, samples[, classes]) as served; rows (members, samples) have a weighted mean."""
    if predictions.ndim == 3:
        return combine(predictions, weights, combiner)
    return np.asarray(np.average(predictions, axis=0, weights=weights))


def calibrate(predictions: Predictions, labels: NDArray[np.int64]) -> list[MemberCalibration]:
    """Fit a temperature to each member's `predictions` (samples, classes)."""
    return [calibrate_member(np.asarray(p), labels) for p in predictions]


def sample_losses(loss: Loss, predictions: NDArray[Any], labels: NDArray[Any] | None) -> Floats:
    """Return the loss of each sample, whose mean is the loss; macro-F1 has none, and is refused by the caller."""
    if loss == "cross-entropy":
        truth = predictions if labels is None else metrics.true_class(predictions, labels)
        return np.asarray(-np.log(np.maximum(truth.astype(np.float64), metrics.FLOOR)))
    assert labels is not None  # only the cross-entropy takes rows of the true class
    if loss == "accuracy":
        return np.asarray(predictions.argmax(axis=1) != labels, dtype=np.float64)
    targets = labels if labels.shape == predictions.shape else np.eye(predictions.shape[-1])[labels]
    residuals = predictions.astype(np.float64) - targets
    return np.asarray((residuals * residuals).reshape(len(residuals), -1).sum(axis=1))
