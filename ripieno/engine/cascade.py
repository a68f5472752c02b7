"""Cascades (early exit): members run in turn, and a sample stops once its running mean is confident.

`plan_cascade` chooses the order and the threshold on validation predictions and reports what they save and cost.
`judge_cascade` evaluates them on other samples. `advance` is one step in a running engine.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.combiner import Fault, is_finite
from ripieno.engine.request import ExecutionPlan, PartialResult
from ripieno.engine.ring import RequestSlice
from ripieno.errors import EngineError
from ripieno.tasks.calibration import apply_temperature
from ripieno.tasks.metrics import cross_entropy
from ripieno.tasks.pixels import PixelTotals, prediction_blocks, sample_rows
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import (
    DISABLED,
    IGNORED,
    TOLERANCE,
    Cascade,
    CascadeEffect,
    Float32s,
    Ints,
    Task,
    classification,
)

MemberPredictions = Sequence[NDArray[np.floating]] | NDArray[np.floating]
THRESHOLDS = 200
"""Number of thresholds that `plan_cascade` tries."""
PIXELS = 1 << 19
"""Pixels of all samples by which members are ordered, where there are more."""
LEAST = 1e-12
"""Weight of a member with weight 0: if it runs first, its prediction is the only one."""


class _RunningMeans:
    """Running means of members in an order, on samples with targets, at the temperature of the ensemble."""

    def __init__(
        self,
        order: Sequence[Sequence[int]],
        samples: _Samples,
        costs: Sequence[float],
        shares: NDArray[np.float64],
        temperature: float,
    ) -> None:
        """Compute confidences and likelihoods; the means are recomputed when needed, to hold one at a time.

        `order` holds the members of each unit.
        """
        self._order, self._samples, self._shares, self._temperature = order, samples, shares, temperature
        self.confidence = self._observe()
        """(units, samples)"""
        spent = np.cumsum(np.asarray([sum(costs[i] for i in unit) for unit in order], np.float64))
        self._cost_shares = spent / spent[-1]
        """(units,), share of the compute up to each unit"""
        self._members_run = np.cumsum([len(unit) for unit in order])
        """(units,), number of members up to each unit"""

    def _observe(self) -> Float32s:
        """Return the confidences, and keep what the loss needs."""
        confidences, likelihoods = [], []
        for mean in self._means(slice(None)):
            confidences.append(self._samples.confidence(mean))
            likelihoods.append(self._samples.likelihood(mean))
        self._likelihoods = np.stack(likelihoods).astype(np.float32)
        """(units, samples[, labels])"""
        return np.stack(confidences).astype(np.float32)

    @functools.cached_property
    def whole_loss(self) -> float:
        """Loss of the mean of all members."""
        return self.loss(np.full(len(self._samples), len(self._order) - 1))

    def stops(self, threshold: float) -> NDArray[np.intp]:
        """Return the position (samples,) of the unit at which each sample stops: the first sure one, or the last."""
        last = np.ones((1, self.confidence.shape[1]), np.bool_)
        return np.asarray(np.vstack([self.confidence[:-1] >= threshold, last]).argmax(0))

    def saved(self, stops: NDArray[np.intp]) -> float:
        """Return the share of the compute that is saved."""
        return 1.0 - float(self._cost_shares[stops].mean())

    def loss(self, stops: NDArray[np.intp]) -> float:
        """Return the loss of the samples that stop at `stops`."""
        return cross_entropy(self._likelihoods[stops, np.arange(len(stops))])

    def _scores(self, stops: NDArray[np.intp]) -> tuple[float, float]:
        """Return the score of the samples that stop at `stops`, and that of the mean of all members."""
        stopped = mean = np.empty(0, np.float32)
        for position, mean in enumerate(self._means(slice(None))):
            stopped = mean.copy() if not position else stopped
            stopped[stops >= position] = mean[stops >= position]
        return self._samples.score(stopped), self._samples.score(mean)

    def effect(self, threshold: float) -> CascadeEffect:
        """Return the effect of a threshold."""
        stops = self.stops(threshold)
        score, whole_score = self._scores(stops)
        return CascadeEffect(
            samples=len(stops),
            saved=self.saved(stops),
            asked=float(self._members_run[stops].mean()),
            loss=self.loss(stops),
            whole_loss=self.whole_loss,
            score=score,
            whole_score=whole_score,
        )

    def _means(self, rows: slice) -> Iterator[Float32s]:
        """Yield the running means (samples, *output) of the samples at `rows`, as a running engine forms them."""
        predictions = self._samples.predictions
        total = np.zeros(predictions[0][rows].shape, np.float32)
        weight = 0.0
        for unit in self._order:
            for member in unit:
                share = self._shares[member] or LEAST
                weight += share
                total += np.float32(share) * np.asarray(predictions[member][rows], np.float32)
            yield apply_temperature(total / weight, self._temperature, self._samples.kind)


class _RunningMasks(_RunningMeans):
    """Running means of predictions of pixels, of which a block of samples is in memory at a time."""

    def _observe(self) -> Float32s:
        blocks = []
        for rows in prediction_blocks(self._samples.predictions[0]):
            truth = self._samples.targets[rows]
            means = ((self._samples.confidence(m), PixelTotals.of(m, truth)) for m in self._means(rows))
            blocks.append(list(means))
        units, classes = range(len(self._order)), self._samples.task.output[-1]
        self._totals = [PixelTotals.joined([block[unit][1] for block in blocks], classes) for unit in units]
        """of each unit"""
        return np.array([np.concatenate([block[unit][0] for block in blocks]) for unit in units], np.float32)

    def loss(self, stops: NDArray[np.intp]) -> float:
        return self._chosen(stops).scores()["cross_entropy"]

    def _scores(self, stops: NDArray[np.intp]) -> tuple[float, float]:
        name = self._samples.kind.default_metric
        return self._chosen(stops).scores()[name], self._totals[-1].scores()[name]

    def _chosen(self, stops: NDArray[np.intp]) -> PixelTotals:
        """Return the totals of each sample at the unit where it stops."""
        return PixelTotals.chosen(self._totals, stops)


def check_confidence(task: Task) -> None:
    """Raise EngineError for a task whose predictions have no confidence."""
    if kind_of(task).confidence(np.ones((1, *task.output), np.float32)) is None:
        raise EngineError(f"A cascade needs a confidence, which a {task.kind} task does not have. Run all members.")


@dataclass(frozen=True, eq=False)
class _Samples:
    """Samples with their targets and the predictions of each member."""

    predictions: MemberPredictions
    targets: NDArray[Any]
    task: Task
    thresholds: Sequence[float]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def kind(self) -> TaskKind:
        return kind_of(self.task)

    def confidence(self, mean: NDArray[Any]) -> NDArray[Any]:
        """Return the confidence of each sample."""
        confidence = self.kind.confidence(mean)
        assert confidence is not None
        return confidence

    def likelihood(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Return the likelihoods of the targets, (samples[, labels]); of pixels those of a sample, (pixels,)."""
        likelihood = self.kind.likelihood(predictions, self.targets)
        assert likelihood is not None
        if not self.kind.is_pixelwise:
            return likelihood.reshape(self.targets.shape)
        return likelihood if self._pixels is None else likelihood[self._pixels]

    @functools.cached_property
    def _pixels(self) -> Ints | None:
        """Return the counted pixels by which members are ordered; None: all."""
        images = np.array([np.count_nonzero(mask != IGNORED) for mask in self.targets])
        return sample_rows(images, max(1, PIXELS // len(images)))[0]

    def score(self, predictions: NDArray[Any]) -> float:
        """Return the default metric of the kind."""
        return self.kind.scores(predictions, self.targets, self.task, self.thresholds)[self.kind.default_metric]


def plan_cascade(
    members: Sequence[str],
    predictions: MemberPredictions,
    targets: NDArray[Any],
    costs: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    tolerance: float = TOLERANCE,
    temperature: float = 1.0,
    task: Task | None = None,
    thresholds: Sequence[float] = (),
    units: Sequence[str] | None = None,
) -> Cascade:
    """Return the cascade that saves most compute while the loss grows by at most `tolerance`.

    `predictions` (members, samples, *output) are probabilities on validation samples with `targets`; those of pixels
    may be memory-mapped, and a sample of them orders the members. `costs` (members,) are in any unit, `weights`
    (members,) are those of the mean. Members are ordered by benefit per cost: each next one reduces the loss of the
    running mean most per cost. `predictions` are at the temperatures of the members; the `temperature` of the ensemble
    is applied to each running mean, but not for the order. `task` is a classification by default; `thresholds` are
    those of `Ensemble`. If nothing can be saved, the threshold is one that no mean reaches. `units` (members,) names
    the unit of each member, by default its own: members of one unit run together, before a sample may stop, and their
    costs add up to that of the unit.
    Raises EngineError when shapes disagree, and for a task whose predictions have no confidence.
    """
    shares, samples = _check(members, predictions, targets, costs, weights, task, thresholds)
    order = _order(samples, costs, shares, _by_unit(range(len(members)), units))
    means = _means_of(order, samples, costs, shares, temperature)
    best, most = DISABLED, means.saved(means.stops(DISABLED))
    tried = np.unique(np.quantile(means.confidence[:-1], np.linspace(0, 1, THRESHOLDS))) if len(order) > 1 else ()
    for threshold in tried:
        stops = means.stops(float(threshold))
        if means.loss(stops) - means.whole_loss <= tolerance and means.saved(stops) > most:
            best, most = float(threshold), means.saved(stops)
    names = tuple(members[i] for unit in order for i in unit)
    return Cascade(names, best, tolerance, {"valid": means.effect(best)})


def judge_cascade(
    cascade: Cascade,
    members: Sequence[str],
    predictions: MemberPredictions,
    targets: NDArray[Any],
    costs: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    temperature: float = 1.0,
    task: Task | None = None,
    thresholds: Sequence[float] = (),
    units: Sequence[str] | None = None,
) -> CascadeEffect:
    """Return the effect of `cascade` on other samples; arguments and errors are those of `plan_cascade`."""
    shares, samples = _check(members, predictions, targets, costs, weights, task, thresholds)
    order = _by_unit([list(members).index(m) for m in cascade.order], units)
    return _means_of(order, samples, costs, shares, temperature).effect(cascade.threshold)


def _means_of(
    order: Sequence[Sequence[int]],
    samples: _Samples,
    costs: Sequence[float],
    shares: NDArray[np.float64],
    temperature: float,
) -> _RunningMeans:
    means = _RunningMasks if samples.kind.is_pixelwise else _RunningMeans
    return means(order, samples, costs, shares, temperature)


def _check(
    members: Sequence[str],
    predictions: MemberPredictions,
    targets: NDArray[Any],
    costs: Sequence[float],
    weights: Sequence[float] | None,
    task: Task | None,
    thresholds: Sequence[float],
) -> tuple[NDArray[np.float64], _Samples]:
    """Return the weights, by default equal ones, and the samples. Raises EngineError when shapes disagree."""
    shapes = {np.shape(p) for p in predictions}
    axes = 2 if task is None else 1 + len(task.output)
    right = len(shapes) == 1 and len(next(iter(shapes))) == axes and next(iter(shapes))[0] == len(targets)
    if not right or len(predictions) != len(members) or len(costs) != len(members):
        must = f"({len(members)}, {len(targets)}, outputs) with {len(members)} costs"
        got = f"{len(predictions)} x {', '.join(map(str, sorted(shapes)))} with {len(costs)} costs"
        raise EngineError(f"The predictions are {got}, expected {must}.")
    if task is None:
        task = classification([str(i) for i in range(predictions[0].shape[1])])
    check_confidence(task)
    shares = np.asarray(weights if weights is not None else [1.0] * len(members), np.float64)
    return shares, _Samples(predictions, targets, task, thresholds)


def _by_unit(members: Sequence[int], units: Sequence[str] | None) -> list[list[int]]:
    """Return `members` by unit, the unit of the first member first."""
    groups: dict[str | int, list[int]] = {}
    for member in members:
        groups.setdefault(member if units is None else units[member], []).append(member)
    return list(groups.values())


def _order(
    samples: _Samples, costs: Sequence[float], shares: NDArray[np.float64], units: Sequence[list[int]]
) -> list[list[int]]:
    """Return a greedy order of units: next the one that lowers the loss most per cost; ties to the cheaper."""
    likelihoods = [samples.likelihood(p).astype(np.float64) for p in samples.predictions]
    sums = [np.asarray(sum(shares[m] * likelihoods[m] for m in unit)) for unit in units]
    weights = [float(sum(shares[m] for m in unit)) for unit in units]
    prices = [sum(costs[m] for m in unit) for unit in units]
    rest = list(range(len(units)))
    order: list[list[int]] = []
    total = np.zeros_like(likelihoods[0])
    chance = 1 / samples.task.output[-1] if samples.kind.activation == "softmax" else 0.5
    weight, loss = 0.0, -math.log(chance)
    while rest:
        # a unit with weight 0 changes nothing, and may even be the first
        losses = {u: cross_entropy((total + sums[u]) / max(weight + weights[u], LEAST)) for u in rest}
        best = max(rest, key=lambda u: ((loss - losses[u]) / prices[u], -prices[u]))
        rest.remove(best)
        order.append(units[best])
        total += sums[best]
        weight, loss = weight + weights[best], losses[best]
    return order


@dataclass(slots=True)
class CascadeState:
    """Progress of a request slice in a cascade."""

    unit: int
    """index of the unit that runs now"""
    total: Float32s
    """weighted sum of the predictions so far, (samples, *output)"""
    weight: Float32s
    """sum of the weights in it, (samples, 1 for each axis of the output)"""
    depth: NDArray[np.int32]
    """number of members that predicted each sample"""
    active: NDArray[np.bool_]
    """samples that are not yet sure"""
    temperature: float
    """of the running means"""
    passed: list[int] = field(default_factory=list)
    """members that have predicted"""
    done: set[int] = field(default_factory=set)
    """units that have run"""

    @classmethod
    def begin(cls, unit: int, samples: int, output: tuple[int, ...], temperature: float) -> CascadeState:
        """Start with `unit`, on all samples."""
        zeros = np.zeros((samples, *output), np.float32)
        weight = np.zeros((samples, *[1] * len(output)), np.float32)
        return cls(unit, zeros, weight, np.zeros(samples, np.int32), np.ones(samples, bool), temperature)

    def stop_sure(self, threshold: float, kind: TaskKind) -> None:
        """End the samples whose running mean has a confidence of at least `threshold`."""
        confidence = kind.confidence(self._means(self.active, kind))
        assert confidence is not None
        self.active[self.active] = confidence < threshold

    def part(self, offset: int, kind: TaskKind) -> PartialResult:
        """Return the result so far."""
        return PartialResult(offset, self._means(slice(None), kind), tuple(self.passed), depth=self.depth.copy())

    def _means(self, rows: NDArray[np.bool_] | slice, kind: TaskKind) -> Float32s:
        return apply_temperature(self.total[rows] / self.weight[rows], self.temperature, kind)


def check_step(request_slice: RequestSlice, predictions: Float32s) -> Fault | None:
    """Return the first fault of the unit that ran on a slice; None if its `predictions` (see `advance`) are finite."""
    progress: CascadeState = request_slice.progress
    if request_slice.request.closed:
        return None
    for member in request_slice.request.plan.units.get(progress.unit, ()):
        own = predictions[member][progress.active]
        if not is_finite(own) and len(bad := np.flatnonzero(~np.isfinite(own).reshape(len(own), -1).all(axis=1))):
            return Fault(request_slice, member, int(np.flatnonzero(progress.active)[bad[0]]))
    return None


def advance(
    request_slice: RequestSlice, plan: ExecutionPlan, predictions: Float32s, shares: Float32s, kind: TaskKind
) -> list[tuple[int, int, int]]:
    """Record the predictions of the unit that ran, and return the next steps (unit, start, stop) by position.

    `predictions` (members, samples, *output) are those of the slots of the slice, `shares` (members,) the weights,
    `kind` that of the task. The list is empty when all samples are sure or no unit is left: then the request has its
    partial result.
    """
    assert plan.threshold is not None
    progress: CascadeState = request_slice.progress
    progress.done.add(progress.unit)
    members = plan.units.get(progress.unit, ())
    for member in members:
        share = shares[member] or np.float32(LEAST)
        progress.total[progress.active] += share * predictions[member][progress.active]
        progress.weight[progress.active] += share
        progress.depth[progress.active] += 1
        progress.passed.append(member)
    if members:
        progress.stop_sure(plan.threshold, kind)
    left = [unit for unit in plan.units if unit not in progress.done]
    if not left or not progress.active.any():
        if progress.passed:
            request_slice.request.parts.append(progress.part(request_slice.offset, kind))
        return []
    progress.unit = left[0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], progress.active.view(np.int8), [0]])))
    pairs = edges.reshape(-1, 2) + request_slice.start
    return [(left[0], int(start), int(stop)) for start, stop in pairs]
