"""Cascades (early exit): members run in turn, and a sample stops once its running mean is confident.

`plan_cascade` chooses the order and the threshold on validation predictions and reports what they save and cost.
`judge_cascade` evaluates them on other samples. `advance` is one step in a running engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.combiner import Fault, is_finite
from ripieno.engine.request import ExecutionPlan, PartialResult
from ripieno.engine.ring import RequestSlice
from ripieno.errors import EngineError
from ripieno.tasks.calibration import apply_temperature
from ripieno.tasks.metrics import cross_entropy, true_class
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import DISABLED, TOLERANCE, Cascade, CascadeEffect, Float32s

MemberPredictions = Sequence[NDArray[np.floating]] | NDArray[np.floating]
THRESHOLDS = 200
"""Number of thresholds that `plan_cascade` tries."""
LEAST = 1e-12
"""Weight of a member with weight 0: if it runs first, its prediction is the only one."""


@dataclass(frozen=True, eq=False)
class _RunningMeans:
    """Running means of members in an order, on labelled samples; arrays are (members, samples) but `cost_shares`.

    They are at the temperature of the ensemble.
    """

    sure: Float32s
    """largest probability"""
    truth: Float32s
    """probability of the true class"""
    right: NDArray[np.bool_]
    """True where the largest probability is that of the true class"""
    cost_shares: NDArray[np.float64]
    """(members,), share of the compute up to each member"""

    def effect(self, threshold: float) -> CascadeEffect:
        """Return the effect of a threshold: a sample stops at the first member that is sure, else at the last."""
        last = np.ones((1, self.sure.shape[1]), np.bool_)
        stops = np.vstack([self.sure[:-1] >= threshold, last]).argmax(0)
        rows = np.arange(len(stops))
        return CascadeEffect(
            samples=len(stops),
            saved=1.0 - float(self.cost_shares[stops].mean()),
            asked=float(stops.mean()) + 1.0,
            cross_entropy=cross_entropy(self.truth[stops, rows]),
            whole_cross_entropy=cross_entropy(self.truth[-1]),
            accuracy=float(self.right[stops, rows].mean()),
            whole_accuracy=float(self.right[-1].mean()),
        )


def plan_cascade(
    members: Sequence[str],
    predictions: MemberPredictions,
    labels: NDArray[np.integer],
    costs: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    tolerance: float = TOLERANCE,
    temperature: float = 1.0,
) -> Cascade:
    """Return the cascade that saves most compute while the cross-entropy grows by at most `tolerance`.

    `predictions` (members, samples, classes) are probabilities on validation samples with `labels` (samples,), `costs`
    (members,) are in any unit, `weights` (members,) are those of the mean. Members are ordered by benefit per cost:
    each next one reduces the cross-entropy of the running mean most per cost. `predictions` are at the temperatures of
    the members; the `temperature` of the ensemble is applied to each running mean, but not for the order. If nothing
    can be saved, the threshold is one that no mean reaches. Raises EngineError when shapes disagree.
    """
    shares = _check(members, predictions, labels, costs, weights)
    order = _order(predictions, labels, costs, shares)
    means = _running_means(order, predictions, labels, costs, shares, temperature)
    best, most = DISABLED, means.effect(DISABLED)
    tried = np.unique(np.quantile(means.sure[:-1], np.linspace(0, 1, THRESHOLDS))) if len(order) > 1 else ()
    for threshold in tried:
        effect = means.effect(float(threshold))
        if effect.cross_entropy - effect.whole_cross_entropy <= tolerance and effect.saved > most.saved:
            best, most = float(threshold), effect
    return Cascade(tuple(members[i] for i in order), best, tolerance, {"valid": most})


def judge_cascade(
    cascade: Cascade,
    members: Sequence[str],
    predictions: MemberPredictions,
    labels: NDArray[np.integer],
    costs: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    temperature: float = 1.0,
) -> CascadeEffect:
    """Return the effect of `cascade` on other samples; arguments and errors are those of `plan_cascade`."""
    shares = _check(members, predictions, labels, costs, weights)
    order = [list(members).index(m) for m in cascade.order]
    return _running_means(order, predictions, labels, costs, shares, temperature).effect(cascade.threshold)


def _check(
    members: Sequence[str],
    predictions: MemberPredictions,
    labels: NDArray[np.integer],
    costs: Sequence[float],
    weights: Sequence[float] | None,
) -> NDArray[np.float64]:
    """Return the weights, by default equal ones. Raises EngineError when shapes disagree."""
    shapes = {np.shape(p) for p in predictions}
    right = len(shapes) == 1 and len(next(iter(shapes))) == 2 and next(iter(shapes))[0] == len(labels)
    if not right or len(predictions) != len(members) or len(costs) != len(members):
        must = f"({len(members)}, {len(labels)}, classes) with {len(members)} costs"
        got = f"{len(predictions)} x {', '.join(map(str, sorted(shapes)))} with {len(costs)} costs"
        raise EngineError(f"The predictions are {got}, expected {must}.")
    return np.asarray(weights if weights is not None else [1.0] * len(members), np.float64)


def _order(
    predictions: MemberPredictions, labels: NDArray[np.integer], costs: Sequence[float], shares: NDArray[np.float64]
) -> list[int]:
    """Return a greedy order: next the member that lowers the cross-entropy most per cost; ties to the cheaper."""
    truth = np.stack([true_class(p, labels).astype(np.float64) for p in predictions])
    rest = list(range(len(truth)))
    order: list[int] = []
    total = np.zeros(len(labels))
    weight, loss = 0.0, float(np.log(predictions[0].shape[1]))
    while rest:
        # a member with weight 0 changes nothing, and may even be the first
        losses = {m: cross_entropy((total + shares[m] * truth[m]) / max(weight + shares[m], 1e-12)) for m in rest}
        best = max(rest, key=lambda m: ((loss - losses[m]) / costs[m], -costs[m]))
        rest.remove(best)
        order.append(best)
        total += shares[best] * truth[best]
        weight, loss = weight + shares[best], losses[best]
    return order


def _running_means(
    order: Sequence[int],
    predictions: MemberPredictions,
    labels: NDArray[np.integer],
    costs: Sequence[float],
    shares: NDArray[np.float64],
    temperature: float,
) -> _RunningMeans:
    """Return running means in `order`, one (samples, classes) sum at a time, as a running engine forms them."""
    total = np.zeros(predictions[0].shape, np.float32)
    weight = 0.0
    sure, truth, right = [], [], []
    for member in order:
        share = shares[member] or LEAST
        weight += share
        total += np.float32(share) * np.asarray(predictions[member], np.float32)
        mean = apply_temperature(total / weight, temperature)
        sure.append(mean.max(1))
        truth.append(true_class(mean, labels))
        right.append(mean.argmax(1) == labels)
    spent = np.cumsum(np.asarray([costs[i] for i in order], np.float64))
    means = np.stack(sure).astype(np.float32), np.stack(truth).astype(np.float32), np.stack(right)
    return _RunningMeans(*means, spent / spent[-1])


@dataclass(slots=True)
class CascadeState:
    """Progress of a request slice in a cascade."""

    member: int
    """index of the member that runs now"""
    total: Float32s
    """weighted sum of the predictions so far, (samples, outputs)"""
    weight: Float32s
    """sum of the weights in it, (samples, 1)"""
    depth: NDArray[np.int32]
    """number of members that predicted each sample"""
    active: NDArray[np.bool_]
    """samples that are not yet sure"""
    temperature: float
    """of the running means"""
    passed: list[int] = field(default_factory=list)

    @classmethod
    def begin(cls, member: int, samples: int, output: tuple[int, ...], temperature: float) -> CascadeState:
        """Start with `member`, on all samples."""
        zeros = np.zeros((samples, *output), np.float32)
        weight = np.zeros((samples, 1), np.float32)
        return cls(member, zeros, weight, np.zeros(samples, np.int32), np.ones(samples, bool), temperature)

    def stop_sure(self, threshold: float, kind: TaskKind) -> None:
        """End the samples whose running mean has a confidence of at least `threshold`."""
        confidence = kind.confidence(self._means(self.active))
        assert confidence is not None
        self.active[self.active] = confidence < threshold

    def part(self, offset: int) -> PartialResult:
        """Return the result so far."""
        return PartialResult(offset, self._means(slice(None)), tuple(self.passed), depth=self.depth.copy())

    def _means(self, rows: NDArray[np.bool_] | slice) -> Float32s:
        return apply_temperature(self.total[rows] / self.weight[rows], self.temperature)


def check_step(request_slice: RequestSlice, predictions: Float32s) -> Fault | None:
    """Return the fault of the member that ran on a slice; None if its `predictions` (see `advance`) are all finite."""
    progress: CascadeState = request_slice.progress
    if progress.member in request_slice.unwanted:
        return None
    own = predictions[progress.member][progress.active]
    if is_finite(own) or not len(bad := np.flatnonzero(~np.isfinite(own).all(axis=1))):
        return None
    return Fault(request_slice, progress.member, int(np.flatnonzero(progress.active)[bad[0]]))


def advance(
    request_slice: RequestSlice, plan: ExecutionPlan, predictions: Float32s, shares: Float32s, kind: TaskKind
) -> list[tuple[int, int, int]]:
    """Record the predictions of the member that ran, and return the next steps (member, start, stop) by position.

    `predictions` (members, samples, outputs) are those of the slots of the slice, `shares` (members,) the weights,
    `kind` that of the task. The list is empty when all samples are sure or no member is left: then the request has its
    partial result.
    """
    assert plan.threshold is not None
    progress: CascadeState = request_slice.progress
    if progress.member not in request_slice.unwanted:
        share = shares[progress.member] or np.float32(LEAST)
        progress.total[progress.active] += share * predictions[progress.member][progress.active]
        progress.weight[progress.active] += share
        progress.depth[progress.active] += 1
        progress.passed.append(progress.member)
        progress.stop_sure(plan.threshold, kind)
    left = [m for m in plan.members if m not in progress.passed and m not in request_slice.unwanted]
    if not left or not progress.active.any():
        if progress.passed:
            request_slice.request.parts.append(progress.part(request_slice.offset))
        return []
    progress.member = left[0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], progress.active.view(np.int8), [0]])))
    pairs = edges.reshape(-1, 2) + request_slice.start
    return [(left[0], int(start), int(stop)) for start, stop in pairs]
