"""Cascades: members are asked in turn, and a sample whose running mean is already sure is not shown to the rest.

`plan_cascade` chooses the order and the threshold on validation predictions and says what they save and cost; `advance`
is one step of it in a running engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.claims import Span
from ripieno.engine.request import Part, Plan
from ripieno.errors import EngineError

Array = NDArray[np.float32]
THRESHOLDS = 60
"""How many thresholds `plan_cascade` tries."""


@dataclass(frozen=True)
class Cascade:
    """An order of members, and how sure their running mean must be for a sample to stop.

    The rest says what to expect, as measured on the predictions it was planned on.
    """

    order: tuple[str, ...]
    threshold: float
    """largest probability of the running mean at which a sample stops"""
    saved: float = 0.0
    """share of the compute that is saved"""
    cross_entropy: float = 0.0
    """by how much the cross-entropy grows"""
    accuracy: float = 0.0
    """by how much the accuracy changes; negative is worse"""


def plan_cascade(
    members: Sequence[str],
    predictions: NDArray[np.floating],
    labels: NDArray[np.integer],
    costs: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    tolerance: float = 0.002,
) -> Cascade:
    """The cascade that saves most while the cross-entropy grows by at most `tolerance`.

    `predictions` (members, samples, classes) are probabilities on validation samples with `labels` (samples,), `costs`
    (members,) in any unit, `weights` (members,) those of the mean. Members are ordered by benefit per cost: each next
    one lowers the cross-entropy of the running mean most for what it costs. Raises EngineError when shapes disagree.
    """
    cube = np.asarray(predictions, np.float64)
    if cube.ndim != 3 or len(cube) != len(members) or len(costs) != len(members) or cube.shape[1] != len(labels):
        must = f"({len(members)}, {len(labels)}, classes), with {len(members)} costs"
        raise EngineError(f"predictions have shape {cube.shape}, must be {must}")
    shares = np.asarray(weights if weights is not None else [1.0] * len(members), np.float64)
    price = np.asarray(costs, np.float64) / np.sum(costs)
    order = _order(cube, labels, price, shares)
    means = np.cumsum(shares[order, None, None] * cube[order], 0) / np.cumsum(shares[order])[:, None, None]
    sure = means.max(2)  # (depth, samples)
    paid = np.cumsum(price[order])
    whole = _cross_entropy(means[-1], labels)
    right = float((means[-1].argmax(1) == labels).mean())
    names = tuple(members[i] for i in order)
    best = Cascade(names, 2.0)  # nobody is ever so sure
    rows = np.arange(len(labels))
    for threshold in np.unique(np.quantile(sure[:-1], np.linspace(0, 1, THRESHOLDS))) if len(order) > 1 else ():
        stopped = np.vstack([sure[:-1] >= threshold, np.ones((1, len(labels)), bool)]).argmax(0)
        mean = means[stopped, rows]
        grown = _cross_entropy(mean, labels) - whole
        saved = 1.0 - float(paid[stopped].mean())
        if grown <= tolerance and saved > best.saved:
            accuracy = float((mean.argmax(1) == labels).mean()) - right
            best = Cascade(names, float(threshold), saved, grown, accuracy)
    return best


def _order(
    cube: NDArray[np.float64], labels: NDArray[np.integer], price: NDArray[np.float64], shares: NDArray[np.float64]
) -> list[int]:
    """Greedily: the member next that lowers the cross-entropy most per cost; ties to the cheaper."""
    rest = list(range(len(cube)))
    order: list[int] = []
    total = np.zeros(cube.shape[1:])
    weight, loss = 0.0, float(np.log(cube.shape[2]))
    while rest:
        losses = {m: _cross_entropy((total + shares[m] * cube[m]) / (weight + shares[m]), labels) for m in rest}
        best = max(rest, key=lambda m: ((loss - losses[m]) / price[m], -price[m]))
        rest.remove(best)
        order.append(best)
        total += shares[best] * cube[best]
        weight, loss = weight + shares[best], losses[best]
    return order


def _cross_entropy(mean: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    return float(-np.log(np.clip(mean[np.arange(len(labels)), labels], 1e-12, None)).mean())


@dataclass(slots=True)
class Progress:
    """How far a span is in a cascade."""

    member: int
    """who is asked now"""
    total: Array
    """weighted sum of the probabilities so far, (samples, classes)"""
    weight: Array
    """sum of the weights in it, (samples, 1)"""
    depth: NDArray[np.int32]
    """members each sample passed"""
    active: NDArray[np.bool_]
    """samples that are not yet sure"""
    passed: list[int] = field(default_factory=list)

    @classmethod
    def begin(cls, member: int, samples: int, classes: int) -> Progress:
        """`member` is asked first, about all samples."""
        zeros = np.zeros((samples, classes), np.float32)
        weight = np.zeros((samples, 1), np.float32)
        return cls(member, zeros, weight, np.zeros(samples, np.int32), np.ones(samples, bool))

    def part(self, offset: int) -> Part:
        """The answer as it stands."""
        return Part(offset, self.total / self.weight, None, None, self.depth.copy())


def advance(span: Span, plan: Plan, predictions: Array, shares: Array) -> list[tuple[int, int, int]]:
    """The member that was asked has passed the span: who is asked next, for which positions (member, start, stop).

    `predictions` (members, samples, classes) are those of the span's slots, `shares` (members,) the weights. Nothing
    comes back when all samples are sure or no member is left: then the request has its part.
    """
    assert plan.threshold is not None
    progress: Progress = span.progress
    if progress.member not in span.unwanted:
        share = shares[progress.member] or np.float32(1e-12)  # a weightless first member still has an opinion
        progress.total[progress.active] += share * predictions[progress.member][progress.active]
        progress.weight[progress.active] += share
        progress.depth[progress.active] += 1
        progress.passed.append(progress.member)
        progress.active &= progress.total.max(1) < plan.threshold * progress.weight[:, 0]
    left = [m for m in plan.members if m not in progress.passed and m not in span.unwanted]
    if not left or not progress.active.any():
        if progress.passed:
            span.request.parts.append(progress.part(span.offset))
        return []
    progress.member = left[0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], progress.active.view(np.int8), [0]])))
    pairs = edges.reshape(-1, 2) + span.start
    return [(left[0], int(start), int(stop)) for start, stop in pairs]
