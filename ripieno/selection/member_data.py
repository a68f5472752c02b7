"""Predictions that an ensemble is selected from: as given, calibrated, and without the samples of a fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.selection.validation import Predictions
from ripieno.tasks.calibration import (
    MemberCalibration,
    apply_temperature,
    calibrate_member,
    fit_temperature,
    without_fold,
)
from ripieno.tasks.registry import TASKS
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Combiner, Floats, Ints


@dataclass(frozen=True, eq=False)
class MemberData:
    """Checked predictions and targets of all selection samples, and the temperatures of the members.

    Without `calibrations` all temperatures are 1. With a `fold`, a mask of held samples, the temperatures are those of
    the remaining samples, which are the ones to select from.
    """

    predictions: Predictions
    """one array per member: true-class (samples,), (samples, classes), or of another task (samples[, outputs])"""
    targets: NDArray[Any] | None
    """(samples, ...); None with predictions of the true class"""
    calibrations: Sequence[MemberCalibration] | None = None
    fold: NDArray[np.bool_] | None = None
    kind: TaskKind = TASKS["classification"]
    images: Ints | None = None
    """of pixels, the number of each image's samples, which follow each other; None: samples are independent"""
    sample: MemberData | None = None
    """of pixels with one number a member, some of them with all classes and the temperatures; None: not calibrated"""

    @property
    def units(self) -> int:
        """Number of independent samples, those of the fold included: images where samples are pixels."""
        return len(self.predictions[0]) if self.images is None else len(self.images)

    @property
    def whole(self) -> MemberData:
        """Data with the predictions of all classes: that of the sample, where there is one."""
        return self if self.sample is None else self.sample

    def samples_of(self, units: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the mask (samples,) of the samples of a mask of `units`."""
        return units if self.images is None else np.repeat(units, self.images)

    def unit_sums(self, values: Floats) -> Floats:
        """Return the sums of `values` (samples,) over each unit, (units,)."""
        if self.images is None:
            return values
        numbers = np.repeat(np.arange(len(self.images)), self.images)
        return np.bincount(numbers, weights=values, minlength=len(self.images)).astype(np.float64)

    def without(self, fold: NDArray[np.bool_]) -> MemberData:
        """Return the data without the samples of a `fold` (samples,), with temperatures fitted without them."""
        if self.calibrations is None:
            return replace(self, fold=fold)
        refitted = []
        for temperature, rows, _ in self.calibrations:
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
        calibrations = self.whole.calibrations
        return 1.0 if calibrations is None else calibrations[member].temperature

    def truth(self) -> Predictions:
        """Return the likelihoods to select from, one row per member: (samples,) probabilities of the true class."""
        if self.calibrations is not None:
            return [self.kept(calibration.rows.truth).reshape(-1) for calibration in self.calibrations]
        if self.targets is None:
            return self.predictions if self.fold is None else [self.kept(row) for row in self.predictions]
        targets = self.kept(self.targets)
        rows = (self.kind.likelihood(self.kept(p), targets) for p in self.predictions)
        return [row for row in rows if row is not None]

    def calibrated(self, member: int) -> NDArray[Any]:
        """Return the predictions of a member at its temperature, for all samples."""
        return apply_temperature(np.asarray(self.predictions[member]), self.temperature(member), self.kind)

    def combined(self, members: Sequence[int], combiner: Combiner) -> NDArray[Any]:
        """Return what the ensemble of `members`, which may repeat, predicts for all samples, at the temperature 1."""
        counts = Counter(members)
        predictions = np.stack([self.calibrated(member) for member in counts])
        return combine_rows(predictions, list(counts.values()), combiner, self.kind)

    def ensemble_temperature(self, combined: NDArray[Any]) -> float:
        """Return the temperature of an ensemble with `combined` predictions; 1 without calibration.

        Of pixels it is 1 where the evidence of the images for another is weak.
        """
        if self.calibrations is None or self.targets is None:
            return 1.0
        if self.images is not None:
            kept = np.ones(len(combined)) if self.fold is None else ~self.fold
            images = self.unit_sums(kept.astype(np.float64)).astype(np.int64)
            own = self.kept(combined), self.kept(self.targets)
            return calibrate_member(*own, self.kind, images[images > 0]).temperature
        return fit_temperature(self.kept(combined), self.kept(self.targets), kind=self.kind)


def combine_rows(
    predictions: NDArray[Any], weights: Sequence[float], combiner: Combiner, kind: TaskKind
) -> NDArray[Any]:
    """Combine `predictions` (members, samples[, outputs]) as served; rows of the true class have a weighted mean."""
    if predictions.ndim > 2 or kind.activation != "softmax":
        return kind.combine(predictions, weights, combiner)
    return np.asarray(np.average(predictions, axis=0, weights=weights))


def calibrate(predictions: Predictions, targets: NDArray[Any], kind: TaskKind) -> list[MemberCalibration]:
    """Fit a temperature to each member's `predictions` (samples, classes or labels)."""
    return [calibrate_member(np.asarray(p), targets, kind) for p in predictions]
