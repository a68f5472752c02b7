"""Objectives over the predictions themselves: scores such as accuracy and macro-F1, and every loss of a median."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.selection.losses import Measure
from ripieno.selection.tree import ParentBounds
from ripieno.tasks.calibration import CLASSES, calibrated_rows, fit_temperature, moved
from ripieno.tasks.combiners import combine
from ripieno.tasks.metrics import cross_entropy
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Floats, Ints, OutputActivation


class DenseSum(NamedTuple):
    """Sum of the predictions (samples, ...) of `members` members."""

    total: Floats
    members: int


class _DenseObjective:
    submodular = False

    def __init__(self, predictions: NDArray[Any], targets: NDArray[Any], measure: Measure) -> None:
        self.size = len(predictions)
        self._predictions, self._targets, self._measure = predictions, targets, measure

    def lower_bounds(self, _state: object, _loss: float, _above: ParentBounds | None) -> Floats:
        """Return zeros: the only bound is that no loss is negative."""
        return np.zeros(self.size)


class MeanObjective(_DenseObjective):
    """Objective over `predictions` (members, samples, ...) of members combined by their mean.

    With `order_only` the `measure` uses the order of a sample's numbers only, and gets sums, which saves a division.
    """

    def __init__(self, predictions: NDArray[Any], targets: NDArray[Any], measure: Measure, order_only: bool) -> None:
        super().__init__(predictions, targets, measure)
        self._order_only = order_only

    def state(self, members: tuple[int, ...]) -> DenseSum:
        """Return the sum of `members` in their order."""
        total = np.zeros(self._predictions.shape[1:])
        for member in members:
            total += self._predictions[member]
        return DenseSum(total, len(members))

    def extend(self, state: DenseSum, member: int) -> DenseSum:
        """Return the sum with one more member."""
        return DenseSum(state.total + self._predictions[member], state.members + 1)

    def losses(self, state: DenseSum, candidates: Ints) -> Floats:
        """Return the loss of the mean with each candidate."""
        count = 1 if self._order_only else state.members + 1
        sums = (state.total + self._predictions[c] for c in candidates)
        return np.array([self._measure(s if count == 1 else s / count, self._targets) for s in sums])

    def nbytes(self) -> int:
        """Return the bytes of a sum."""
        return int(self._predictions[0].size) * 8


class MedianObjective(_DenseObjective):
    """Objective over `predictions` (members, samples, ...) of members combined by their median, after `activation`."""

    def __init__(
        self, predictions: NDArray[Any], targets: NDArray[Any], measure: Measure, activation: OutputActivation
    ) -> None:
        super().__init__(predictions, targets, measure)
        self._activation = activation

    def state(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """Return the members: a median has no running form."""
        return members

    def extend(self, state: tuple[int, ...], member: int) -> tuple[int, ...]:
        """Return the members with one more."""
        return (*state, member)

    def losses(self, state: tuple[int, ...], candidates: Ints) -> Floats:
        """Return the loss of the median with each candidate."""
        medians = (combine(self._predictions[[*state, c]], None, "median", self._activation) for c in candidates)
        return np.array([self._measure(median, self._targets) for median in medians])

    def nbytes(self) -> int:
        """Return the bytes of a state."""
        return 8 * self.size


class JointSum(NamedTuple):
    """Sum of the members' predictions (samples, classes or labels), and the temperature of their mean."""

    total: Floats
    members: int
    temperature: float


class JointObjective:
    """Cross-entropy of a mean at its own temperature, over `predictions` (members, samples, classes or labels).

    With each candidate the temperature is fitted again, by a Newton step from that of the ensemble.
    """

    submodular = False

    def __init__(self, predictions: NDArray[Any], labels: NDArray[Any], kind: TaskKind = CLASSES) -> None:
        self.size = len(predictions)
        self._predictions, self._labels, self._kind = predictions, labels, kind

    def state(self, members: tuple[int, ...]) -> JointSum:
        """Return the sum of `members` in their order."""
        state = JointSum(np.zeros(self._predictions.shape[1:]), 0, 1.0)
        for member in members:
            state = self.extend(state, member)
        return state

    def extend(self, state: JointSum, member: int) -> JointSum:
        """Return the sum with one more member."""
        count = state.members + 1
        total = state.total + self._predictions[member]
        return JointSum(total, count, fit_temperature(total / count, self._labels, kind=self._kind))

    def losses(self, state: JointSum, candidates: Ints) -> Floats:
        """Return the cross-entropy of the mean with each candidate."""
        return np.array([self._loss(state, int(c)) for c in candidates])

    def _loss(self, state: JointSum, candidate: int) -> float:
        mean = (state.total + self._predictions[candidate]) / (state.members + 1)
        temperature = state.temperature
        # the first member may be far from the temperature 1
        for _ in range(1 if state.members else 3):
            rows = calibrated_rows(mean, self._labels, temperature, self._kind)
            temperature, truth = moved(rows, temperature)
        return cross_entropy(truth)

    def lower_bounds(self, _state: JointSum, _loss: float, _above: ParentBounds | None) -> Floats:
        """Return zeros: the only bound is that no loss is negative."""
        return np.zeros(self.size)

    def nbytes(self) -> int:
        """Return the bytes of a sum."""
        return int(self._predictions[0].size) * 8
