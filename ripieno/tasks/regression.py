"""Regression: one or several numbers for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.tasks.labels import check_names
from ripieno.tasks.metrics import target_variances
from ripieno.tasks.numbers import check_finite, check_form, match_columns, read_numbers
from ripieno.tasks.spread import deviation
from ripieno.tasks.spread_calibration import fit_spread
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import (
    SPLITS,
    Combiner,
    CoverageScore,
    Float32s,
    Floats,
    Ints,
    OutputActivation,
    SpreadCalibration,
    Task,
)

STRATA = 10
"""Largest number of quantiles by which splits are stratified."""
SAMPLES_PER_STRATUM = 20
"""Smallest number of samples of a quantile."""
BEYOND = 0.1
"""Share of a split's targets outside the range of the training split above which a note reports them."""


@final
class Regression(TaskKind):
    """See `TaskKind`. Targets are (samples, targets) float32; predictions are values in the targets' own units."""

    name: ClassVar[str] = "regression"
    metrics: ClassVar[tuple[str, ...]] = ("squared_error", "rmse", "mae", "r2")
    default_metric: ClassVar[str] = "rmse"
    activation: ClassVar[OutputActivation] = "identity"
    training_losses: ClassVar[tuple[str, ...]] = ("squared-error", "huber")
    training_options: ClassVar[tuple[str, ...]] = ("mixup", "erasing")
    combiners: ClassVar[tuple[Combiner, ...]] = ("mean", "weighted", "median")
    targets_name: ClassVar[str] = "targets"
    outputs: ClassVar[tuple[str, ...]] = ("values",)
    coverage_scores: ClassVar[tuple[CoverageScore, ...]] = ("spread", "residual", "root")
    names_title: ClassVar[str] = "targets"
    calibrates: ClassVar[bool] = False
    keeps_likelihood: ClassVar[bool] = False
    diversity_title: ClassVar[str] = "mean difference in standard deviations of the target"
    diversity_is_share: ClassVar[bool] = False

    def check_task(self, task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless there is a target, and all are different."""
        check_form(task, "targets", where, error)
        check_names(task.names, f"targets of {where}", error)

    def read_targets(self, values: Any, task: Task, where: str, error: type[RipienoError]) -> NDArray[Any]:
        """Return float32 (samples, targets), from numbers; a single target may be (samples,)."""
        numbers = read_numbers(values, (len(task.names),), where, error)
        with np.errstate(over="ignore"):
            single = numbers.astype(np.float32)
        check_finite(single, where, error)
        return single

    def check_targets(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless these are finite float32, (samples, targets)."""
        if targets.ndim != 2 or targets.shape[1] != len(task.names):
            raise error(f"{where}: targets have shape {targets.shape}, expected (samples, {len(task.names)})")
        if targets.dtype != np.float32:
            raise error(f"{where}: targets hold {targets.dtype}, expected float32")
        check_finite(targets, f"{where}: targets", error)

    def check_training(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless no target is constant."""
        rows = targets.reshape(len(targets), -1)
        same = np.flatnonzero((rows == rows[:1]).all(axis=0))
        if len(same):
            value = f"{rows[0, same[0]]:g}" if len(rows) else "absent"
            name = task.names[same[0]]
            raise error(f"{where}: target {name!r} is {value} in all {len(rows)} samples; leave it out")

    def balance_notes(self, targets: NDArray[Any], split: NDArray[np.uint8], task: Task) -> list[str]:
        """Return notes on targets of the other splits that are beyond the range of the training split."""
        notes = []
        train = targets[split == 0]
        low, high = train.min(axis=0), train.max(axis=0)
        for i, name in enumerate(SPLITS[1:], start=1):
            beyond = (targets[split == i] < low) | (targets[split == i] > high)
            shares = beyond.mean(axis=0) if len(beyond) else np.zeros(len(task.names))
            if shares.max() > BEYOND:
                worst = int(shares.argmax())
                span = f"{low[worst]:g} to {high[worst]:g}, the range of the training samples"
                notes.append(f"{shares[worst]:.0%} of {task.names[worst]!r} in the {name} split are outside {span}")
        return notes

    def match_targets(
        self, targets: NDArray[Any], names: Sequence[str], task: Task, error: type[RipienoError]
    ) -> NDArray[Any]:
        """Return the targets of `task`, matched by name; a single one may have any name."""
        if len(names) == len(task.names) == 1:
            return targets
        return match_columns(targets, names, task, [f"target{i + 1}" for i in range(len(names))], error)

    def strata(self, targets: NDArray[Any]) -> Ints | None:
        """Return the quantile of a single target; None for several, and for too few samples."""
        bins = min(STRATA, len(targets) // SAMPLES_PER_STRATUM)
        if bins < 2 or targets[0].size != 1:
            return None
        ranks = np.empty(len(targets), np.int64)
        ranks[np.argsort(targets.reshape(-1), kind="stable")] = np.arange(len(targets))
        return ranks * bins // len(targets)

    def read_predictions(self, name: str, values: NDArray[Any], task: Task, error: type[RipienoError]) -> NDArray[Any]:
        """Return `values` as floats (samples, targets). Raises `error` unless they are finite numbers."""
        if values.dtype.kind not in "fiub":
            raise error(f"{name}: predictions are of type {values.dtype}, must be numbers")
        if values.ndim == 1 and len(task.names) == 1:
            values = values[:, None]
        if values.ndim != 2:
            raise error(f"{name}: predictions have shape {values.shape}, must be (samples, targets)")
        if values.shape[1] != len(task.names):
            raise error(f"{name}: predictions of {values.shape[1]} targets, must be of {len(task.names)}")
        values = values if values.dtype.kind == "f" else values.astype(np.float64)
        check_finite(values, f"{name}: predictions", error)
        return values

    def likelihood(self, predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any] | None:
        """Return None: the squared error of a mean needs the residuals' products."""
        return None

    def confidence(self, mean: NDArray[Any]) -> NDArray[Any] | None:
        """Return None: a value has no confidence."""
        return None

    def spread(self, predictions: NDArray[Any], mean: NDArray[Any], weights: Floats) -> Float32s:
        """Return the deviation of each target, (samples, targets), in its unit."""
        return deviation(predictions, weights)

    def errors(self, predictions: NDArray[Any], targets: NDArray[Any], thresholds: Sequence[float] = ()) -> Floats:
        """Return the squared error of each sample, the mean over several targets each divided by its variance."""
        residuals = predictions.astype(np.float64) - targets
        return np.asarray((residuals * residuals / target_variances(targets)).mean(axis=1))

    def labels(self, predictions: NDArray[Any], task: Task, thresholds: Sequence[float] = ()) -> list[str] | None:
        """Return None: values are no labels."""
        return None

    def fit_spread(
        self, predictions: NDArray[Any], targets: NDArray[Any], spread: NDArray[Any]
    ) -> SpreadCalibration | None:
        """Return scale and floor of each target; see `spread_calibration`."""
        return fit_spread(predictions, targets, spread)

    def disagreement(self, predictions: Sequence[NDArray[Any]], targets: NDArray[Any]) -> list[float]:
        """Return the mean absolute difference from another member, in standard deviations of the target.

        The differences from all members follow from the sorted values of a sample: with ranks r and sums below.
        """
        scale = np.asarray(targets, np.float64).std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        values = np.stack([np.asarray(p, np.float64) for p in predictions]) / scale
        count = len(values)
        order = np.argsort(values, axis=0, kind="stable")
        ordered = np.take_along_axis(values, order, axis=0)
        below = np.cumsum(ordered, axis=0)
        rank = np.arange(1, count + 1).reshape(-1, *[1] * (values.ndim - 1))
        # sum_j |v_i - v_j| of the i-th smallest
        sums = ordered * (2 * rank - count) + below[-1] - 2 * below
        placed = np.empty_like(sums)
        np.put_along_axis(placed, order, sums, axis=0)
        return [max(0.0, float(own.mean())) / (count - 1) for own in placed]
