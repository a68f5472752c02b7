"""The combiner: predictions in the shared memory become parts of answers, as soon as all members have passed a span.

It sums when the last member arrives, not as each arrives: the order of summation is then the members' order, so that a
request gets the same bytes again, and votes, medians and disagreement cost nothing more. (The paper's running sum saves
no time here: a sum over four members of 64 x 100 probabilities takes 10 microseconds.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.memory import Memory
from ripieno.engine.request import ExecutionPlan, PartialResult
from ripieno.engine.ring_types import RequestSlice
from ripieno.tasks import combiners
from ripieno.types import Combiner as Kind
from ripieno.types import Ensemble

Array = NDArray[np.float32]
SMALL = 1 << 16
"""Numbers up to which what calls cost outweighs what they compute."""
BLOCK = 1 << 13
"""Numbers up to which a product of vectors stays in the thread that asks for it."""


class Fault(NamedTuple):
    """A member that did not answer a span with finite numbers."""

    span: RequestSlice
    member: int
    sample: int
    """the first such sample, counted from the start of the span"""


class Combiner:
    """Combines what lies in `memory` as `ensemble` says; any thread may call."""

    def __init__(self, ensemble: Ensemble, memory: Memory) -> None:
        self._kind = ensemble.combiner
        self._memory = memory
        shares = [1.0] * len(ensemble.members) if ensemble.combiner == "mean" else list(ensemble.weights)
        self._shares = np.asarray(shares, np.float64)
        self._weights: dict[tuple[int, ...], NDArray[np.float32]] = {}
        """by members; a race only computes one twice"""

    def finish(self, spans: Iterable[RequestSlice]) -> list[Fault]:
        """Give the requests of finished spans their parts; neighbours are combined together.

        Returns the faults of members: a span with a fault gets no part.
        """
        faults: list[Fault] = []
        for plan, run in runs(spans, len(self._memory.samples)):
            faults += self.combine(run, plan)
        return faults

    @np.errstate(over="ignore", invalid="ignore")  # what comes of it is looked at
    def combine(self, run: Sequence[RequestSlice], plan: ExecutionPlan) -> list[Fault]:
        """Combine spans that lie in consecutive slots by the members of `plan`. Returns as `finish`."""
        memory, members = self._memory.predictions, plan.members
        slot = run[0].start % memory.shape[1]
        stop = slot + run[-1].stop - run[0].start
        predictions = memory[:, slot:stop] if len(members) == len(memory) else memory[list(members), slot:stop]
        weights = self.weights(members)
        # votes are added in double: shares that were rounded would part classes with equal votes
        answer = combine(self._kind, predictions, self._exact(members) if self._kind == "vote" else weights)
        doubt = spread(predictions, answer, weights) if plan.spread else None
        # a vote or a median can hide what is not finite, a sum cannot
        sound = is_finite(answer if self._kind in ("mean", "weighted") else predictions)
        each = predictions.copy() if plan.each else None
        first = run[0].start
        faults: list[Fault] = []
        for span in run:
            low, high = span.start - first, span.stop - first
            if not sound and (found := find_fault(predictions[:, low:high], answer[low:high])):
                faults.append(Fault(span, members[found[0]], found[1]))
                continue
            own_doubt = None if doubt is None else doubt[low:high]
            own_each = None if each is None else each[:, low:high]
            span.request.parts.append(PartialResult(span.offset, answer[low:high], members, own_doubt, own_each))
        return faults

    def weights(self, members: Sequence[int]) -> NDArray[np.float32]:
        """Shares of `members` among themselves; sum 1."""
        key = tuple(members)
        if key not in self._weights:
            self._weights[key] = self._exact(members).astype(np.float32)
        return self._weights[key]

    def _exact(self, members: Sequence[int]) -> NDArray[np.float64]:
        """`weights` in double."""
        shares = self._shares[list(members)]
        total = shares.sum()
        return np.asarray(shares / total if total > 0 else np.full(len(shares), 1 / len(shares)))


def runs(spans: Iterable[RequestSlice], capacity: int) -> list[tuple[ExecutionPlan, list[RequestSlice]]]:
    """Spans grouped so that each group has one plan and lies in consecutive slots."""
    groups: list[tuple[ExecutionPlan, list[RequestSlice]]] = []
    stop, last = -1, None
    for span in spans:
        plan = span.request.plan
        if span.start == stop and plan is last and span.start % capacity:
            groups[-1][1].append(span)
        else:
            groups.append((plan, [span]))
        stop, last = span.stop, plan
    return groups


def combine(kind: Kind, predictions: Array, weights: NDArray[Any]) -> Array:
    """Answer (samples, classes) of `predictions` (members, samples, classes); `weights` (members,) sum to 1.

    `mean` and `weighted` are the weighted mean (the mean has equal weights); votes and medians are those of
    `ripieno.tasks.combiners`.
    """
    if kind == "vote":
        return combiners.vote(predictions, weights).astype(np.float32)
    if kind == "median":
        return combiners.median(predictions).astype(np.float32, copy=False)
    counts = combiners.whole_weights(weights)
    if predictions.size <= SMALL and predictions.shape[2] > 1:
        # the same sum in the same order, bit for bit, in two calls: the outermost axis is added row by row
        answer: Array = np.add.reduce(predictions * counts[:, None, None], 0)
    else:
        answer = predictions[0] * counts[0]
        for index in range(1, len(counts)):
            answer += predictions[index] * counts[index]
    answer /= counts.sum()
    return answer


def is_finite(values: Array) -> bool:
    """Return whether all of `values` are finite; False also where only the sum of them or of their squares is not."""
    if values.size <= BLOCK:
        return math.isfinite(np.vdot(values, values))  # in half the time of a sum
    return math.isfinite(np.add.reduce(values, axis=None))


def find_fault(predictions: Array, answer: Array) -> tuple[int, int] | None:
    """Return the place of the first member, and its first sample, whose numbers are not finite; None without one.

    `predictions` are (members, samples, classes), `answer` (samples, classes). Where finite numbers add up to what is
    not, the member with the largest is at fault.
    """
    places = np.argwhere(~np.isfinite(predictions))
    if len(places):
        return int(places[0, 0]), int(places[0, 1])
    rows = np.argwhere(~np.isfinite(answer))
    if not len(rows):
        return None
    sample = int(rows[0, 0])
    return int(np.abs(predictions[:, sample]).max(axis=1).argmax()), sample


def spread(predictions: Array, answer: Array, weights: Array) -> Array:
    """How much the members disagree, (samples,): the weighted standard deviation of their probabilities of the class
    that the ensemble answers. In double: squares of large finite numbers are finite there."""
    label = answer.argmax(1)
    chosen = np.take_along_axis(predictions, label[None, :, None], 2)[:, :, 0].astype(np.float64)
    away: Array = np.sqrt(weights @ (chosen - weights @ chosen) ** 2).astype(np.float32)
    return away
