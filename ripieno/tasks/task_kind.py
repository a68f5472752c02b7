"""Base of the kinds of tasks: checks of targets, checks and metrics of predictions, combiners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError, SelectionError
from ripieno.tasks.combiners import combine
from ripieno.tasks.metrics import FLOOR, METRICS, metric_key
from ripieno.tasks.spread import deviation
from ripieno.tasks.uncertainty import entropy, geometric_spread, mutual_information
from ripieno.types import (
    SPLITS,
    Combiner,
    CoverageScore,
    Float32s,
    Floats,
    Ints,
    OutputActivation,
    Split,
    SpreadCalibration,
    Task,
)

TRAINING_OPTIONS = ("label_smoothing", "class_weights", "sampling", "mixup", "cutmix", "erasing")
"""Hyperparameters of training that fit some kinds of tasks only."""


class TaskKind(ABC):
    """One kind of task. `targets` are as in `Dataset`, `predictions` (samples, *task.output), activated."""

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    """keys of `metrics.METRICS`: the ranking metric first, then the scores"""
    default_metric: ClassVar[str]
    """key of the score that is shown where `Task.metric` is empty"""
    activation: ClassVar[OutputActivation]
    """from a network's outputs to predictions"""
    training_losses: ClassVar[tuple[str, ...]]
    """keys of `ripieno.train.losses.LOSSES` that fit, the default first"""
    training_options: ClassVar[tuple[str, ...]]
    """those of `TRAINING_OPTIONS` that fit"""
    combiners: ClassVar[tuple[Combiner, ...]]
    targets_name: ClassVar[str]
    """name of targets in messages"""
    outputs: ClassVar[tuple[str, ...]]
    """names of a server's output tensors: the predictions, then the labels where the kind has any"""
    coverage_scores: ClassVar[tuple[CoverageScore, ...]]
    """scores of prediction sets or intervals that fit, the default first; see `ripieno.tasks.conformal`"""
    names_title: ClassVar[str]
    """what the names of a task are: `classes`"""
    calibrates: ClassVar[bool]
    """whether temperatures can be fitted to its predictions"""
    floor: ClassVar[float] = FLOOR
    """least probability before a temperature is applied"""
    keeps_likelihood: ClassVar[bool]
    """whether `likelihood` is smaller than the predictions and therefore kept on disk, too"""
    is_pixelwise: ClassVar[bool] = False
    """whether each pixel has a prediction: arrays of a split are then read in blocks of samples"""
    has_returns: ClassVar[bool] = False
    """whether samples are episodes, of which a library keeps the returns in place of predictions"""
    has_thresholds: ClassVar[bool] = False
    """whether a threshold is fitted for each label"""
    diversity_title: ClassVar[str]
    """name of `disagreement`"""
    diversity_is_share: ClassVar[bool] = True
    """whether `disagreement` is shown in percent"""

    @abstractmethod
    def check_task(self, task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error`, naming `where`, unless names and shape of the output fit the kind."""

    @abstractmethod
    def read_targets(self, values: Any, task: Task, where: str, error: type[RipienoError]) -> NDArray[Any]:
        """Return `values`, an array of anything, as targets. Raises `error`, naming `where`, unless they are some."""

    def as_targets(self, values: Any, task: Task, where: str, error: type[RipienoError]) -> NDArray[Any]:
        """Return `values`, targets in any numeric type, in the type of the kind. Raises `error` as `read_targets`."""
        return self.read_targets(values, task, where, error)

    @abstractmethod
    def check_targets(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error`, naming `where`, unless `targets` have type, shape and values of the task."""

    def check_sizes(  # noqa: B027  only classes need samples in every split
        self, targets: NDArray[Any], task: Task, splits: Sequence[Split], error: type[RipienoError]
    ) -> None:
        """Raise `error` unless there are enough samples of each class for one in each of `splits`; others need none."""

    @abstractmethod
    def check_training(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless a model can be trained on `targets`, those of the training split."""

    def absent(self, targets: NDArray[Any], task: Task) -> list[str]:
        """Return the names of the classes or labels that no sample has."""
        return []

    def absent_notes(self, targets: NDArray[Any], split: NDArray[np.uint8], task: Task, noun: str) -> list[str]:
        """Return notes on the names, each that of a `noun`, that the validation or test split has no sample of."""
        notes = []
        for i, name in enumerate(SPLITS[1:], start=1):
            held = split == i  # empty: the validation split of a data set with folds
            if held.any() and (absent := self.absent(targets[held], task)):
                more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
                notes.append(f"the {name} split has no sample of {noun} {absent[0]!r}{more}")
        return notes

    @abstractmethod
    def balance_notes(self, targets: NDArray[Any], split: NDArray[np.uint8], task: Task) -> list[str]:
        """Return notes on the balance of the targets of all samples and of each split; `split` is as in `Dataset`."""

    @abstractmethod
    def match_targets(
        self, targets: NDArray[Any], names: Sequence[str], task: Task, error: type[RipienoError]
    ) -> NDArray[Any]:
        """Return targets of a task with other `names` in the order of those of `task`.

        Names that are positions, as those of arrays, are matched by their order. Raises `error` for other names.
        """

    @abstractmethod
    def strata(self, targets: NDArray[Any]) -> Ints | None:
        """Return a stratum (samples,) for each sample, by which splits are stratified; None: splits are random."""

    @abstractmethod
    def read_predictions(self, name: str, values: NDArray[Any], task: Task, error: type[RipienoError]) -> NDArray[Any]:
        """Return `values` as floats. Raises `error` unless they are predictions of the task."""

    def kept_shape(self, task: Task) -> tuple[int, ...]:
        """Return the shape of what a library keeps of each sample: that of a prediction, or of what judges it."""
        return task.output

    @abstractmethod
    def likelihood(self, predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any] | None:
        """Return the row of likelihoods that the loss of a mean needs; None where it needs the predictions."""

    @abstractmethod
    def confidence(self, mean: NDArray[Any]) -> NDArray[Any] | None:
        """Return how certain the combined predictions `mean` are (samples,), 0..1; None where that is unknown."""

    @abstractmethod
    def spread(self, predictions: NDArray[Any], mean: NDArray[Any], weights: Floats) -> Float32s:
        """Return the disagreement of the members, (samples,) or (samples, *task.output), as a standard deviation.

        `predictions` are (members, samples, *task.output), `mean` their combination, `weights` (members,) of sum 1.
        """

    def entropy(self, predictions: NDArray[Any]) -> Float32s | None:
        """Return the entropy of combined predictions (samples,), nats; None for values, which have none."""
        return None if self.activation == "identity" else entropy(predictions, self.activation)

    def member_disagreement(self, predictions: NDArray[Any], weights: Floats) -> Float32s:
        """Return how far the members disagree about each sample (samples,), 0 or more.

        It is the mutual information in nats; of values, the geometric mean of their standard deviations. `predictions`
        are (members, samples, *task.output), `weights` (members,) of sum 1.
        """
        if self.activation == "identity":
            return geometric_spread(deviation(predictions, weights))
        return mutual_information(predictions, weights, self.activation)

    @abstractmethod
    def errors(self, predictions: NDArray[Any], targets: NDArray[Any], thresholds: Sequence[float] = ()) -> Floats:
        """Return the error of each sample (samples,).

        It is the share of its labels that are wrong, 0..1; of values the squared error, of which the mean is the
        ranking metric. `thresholds` are those of `Ensemble`.
        """

    def certainty(self, predictions: NDArray[Any], disagreement: NDArray[Any]) -> Floats:
        """Return by what samples are left unanswered, the least certain ones first (samples,).

        It is the `confidence` of combined predictions; of values, which have none, the negative `disagreement`
        (samples,) of the members.
        """
        confidence = self.confidence(predictions)
        return -np.asarray(disagreement, np.float64) if confidence is None else np.asarray(confidence, np.float64)

    @abstractmethod
    def labels(self, predictions: NDArray[Any], task: Task, thresholds: Sequence[float] = ()) -> list[str] | None:
        """Return the label of each sample as text; None for values. `thresholds`: as in `Ensemble`."""

    @abstractmethod
    def disagreement(self, predictions: Sequence[NDArray[Any]], targets: NDArray[Any]) -> list[float]:
        """Return for each member the mean difference of its predictions from those of another member.

        The time is linear in the members, or nearly.
        """

    def scores(
        self, predictions: NDArray[Any], targets: NDArray[Any], task: Task, thresholds: Sequence[float] = ()
    ) -> dict[str, float]:
        """Return the metrics by name; `thresholds` are those of `Ensemble`, used by several labels only."""
        return {name: METRICS[name].function(predictions, targets) for name in self.metrics}

    def score_blocks(
        self,
        blocks: Iterable[tuple[NDArray[Any], NDArray[Any]]],
        task: Task,
        thresholds: Sequence[float] = (),
    ) -> dict[str, float]:
        """Return the `scores` of predictions and targets that come in blocks of samples."""
        predictions, targets = zip(*blocks, strict=True)
        return self.scores(np.concatenate(predictions), np.concatenate(targets), task, thresholds)

    def losses(
        self,
        predictions: NDArray[Any],
        targets: NDArray[Any],
        task: Task,
        split: Split = "valid",
        thresholds: Sequence[float] = (),
    ) -> dict[str, float]:
        """Return the `scores` of a split by their names in `Member.losses`: `valid_accuracy`."""
        return {f"{split}_{k}": v for k, v in self.scores(predictions, targets, task, thresholds).items()}

    def fit_thresholds(self, predictions: NDArray[Any], targets: NDArray[Any]) -> tuple[float, ...]:
        """Return a threshold for each label, fitted to `predictions`; empty where the kind has none."""
        return ()

    def fit_spread(
        self, predictions: NDArray[Any], targets: NDArray[Any], spread: NDArray[Any]
    ) -> SpreadCalibration | None:
        """Return how the error of combined `predictions` follows from the members' `spread`; None without values."""
        return None

    def combine(
        self,
        predictions: NDArray[Any],
        weights: Sequence[float] | NDArray[Any] | None = None,
        combiner: Combiner = "mean",
    ) -> Float32s:
        """Combine predictions (members, samples, *output) of members, as served; see `combiners.combine`.

        Raises SelectionError for a combiner that the kind does not have.
        """
        self.check_combiner(combiner)
        return self.apply_combiner(predictions, weights, combiner)

    def apply_combiner(
        self, predictions: NDArray[Any], weights: Sequence[float] | NDArray[Any] | None, combiner: Combiner
    ) -> Float32s:
        """Combine predictions by a combiner that the kind has."""
        return combine(predictions, weights, combiner, self.activation)

    def check_combiner(self, combiner: str) -> None:
        """Raise SelectionError for a combiner that the kind does not have."""
        if combiner not in self.combiners:
            known = ", ".join(self.combiners)
            raise SelectionError(f"combiner {combiner!r} does not fit task {self.name}: expected one of {known}")

    def metric_of(self, task: Task) -> str:
        """Return the key of the score that is shown: that of `task`, or the default."""
        return metric_key(task.metric) or self.default_metric
