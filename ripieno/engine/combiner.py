"""The combiner: predictions in the shared memory become partial results once all members predicted a request slice.

It sums when the last member finishes, not after each member. The order of summation is then the members' order, so that
repeated requests get identical bytes. Votes, medians and disagreement need no additional pass. The paper's running sum
saves no time here: a sum over four members of 64 x 100 numbers takes 10 microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.request import ExecutionPlan, PartialResult
from ripieno.engine.ring import RequestSlice
from ripieno.engine.ring_memory import Memory
from ripieno.tasks.calibration import apply_temperature
from ripieno.tasks.combiners import member_shares
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Ensemble, Float32s

BLOCK = 1 << 13
"""Largest array, in numbers, with a dot product that runs in the calling thread only."""


class Fault(NamedTuple):
    """Predictions of a member for a request slice that are not all finite."""

    request_slice: RequestSlice
    member: int
    sample: int
    """the first such sample, counted from the start of the slice"""


class EnsembleCombiner:
    """Combiner of the predictions in `memory`, of a task of `kind`, by the rule of `ensemble`; thread-safe."""

    def __init__(self, ensemble: Ensemble, memory: Memory, kind: TaskKind) -> None:
        self._combiner, self._kind = ensemble.combiner, kind
        self._memory = memory
        self._shares = member_shares(ensemble)
        self._weights: dict[tuple[int, ...], NDArray[np.float64]] = {}
        """by members; in a race an entry is computed twice, without harm"""

    def finish(self, slices: Iterable[RequestSlice]) -> list[Fault]:
        """Append partial results to the requests of finished slices; neighbours are combined together.

        Returns the faults of members: a slice with a fault gets no partial result.
        """
        faults: list[Fault] = []
        for plan, run in runs(slices, len(self._memory.samples)):
            faults += self.combine(run, plan)
        return faults

    @np.errstate(over="ignore", invalid="ignore")  # the results are checked below
    def combine(self, run: Sequence[RequestSlice], plan: ExecutionPlan) -> list[Fault]:
        """Combine slices in consecutive slots with the members of `plan`. Returns as `finish`."""
        memory, members = self._memory.predictions, plan.members
        slot = run[0].start % memory.shape[1]
        stop = slot + run[-1].stop - run[0].start
        predictions = memory[:, slot:stop] if len(members) == len(memory) else memory[list(members), slot:stop]
        weights = self.weights(members)
        answer = self._kind.combine(predictions, weights, self._combiner)
        deviation = self._kind.spread(predictions, answer, weights) if plan.spread else None
        disagreement = self._kind.member_disagreement(predictions, weights) if plan.disagreement else None
        # a vote or a median can hide numbers that are not finite; a sum cannot
        finite = is_finite(answer if self._combiner in ("mean", "weighted") else predictions)
        each = predictions.copy() if plan.each else None
        calibrated = apply_temperature(answer, plan.temperature, self._kind)
        first = run[0].start
        faults: list[Fault] = []
        for request_slice in run:
            low, high = request_slice.start - first, request_slice.stop - first
            if not finite and (fault := find_fault(predictions[:, low:high], answer[low:high])):
                faults.append(Fault(request_slice, members[fault[0]], fault[1]))
                continue
            own_spread = None if deviation is None else deviation[low:high]
            own_each = None if each is None else each[:, low:high]
            own_disagreement = None if disagreement is None else disagreement[low:high]
            part = PartialResult(
                request_slice.offset,
                calibrated[low:high],
                members,
                own_spread,
                own_each,
                disagreement=own_disagreement,
            )
            request_slice.request.parts.append(part)
        return faults

    def weights(self, members: Sequence[int]) -> NDArray[np.float64]:
        """Return the shares of `members` among themselves; their sum is 1."""
        key = tuple(members)
        if key not in self._weights:
            shares = self._shares[list(members)]
            total = shares.sum()
            self._weights[key] = np.asarray(shares / total if total > 0 else np.full(len(shares), 1 / len(shares)))
        return self._weights[key]


def runs(slices: Iterable[RequestSlice], capacity: int) -> list[tuple[ExecutionPlan, list[RequestSlice]]]:
    """Group slices so that each group has one plan and consecutive slots."""
    groups: list[tuple[ExecutionPlan, list[RequestSlice]]] = []
    stop, last = -1, None
    for request_slice in slices:
        plan = request_slice.request.plan
        if request_slice.start == stop and plan is last and request_slice.start % capacity:
            groups[-1][1].append(request_slice)
        else:
            groups.append((plan, [request_slice]))
        stop, last = request_slice.stop, plan
    return groups


def is_finite(values: Float32s) -> bool:
    """Return whether all of `values` are finite; False also if only their sum or the sum of their squares is not."""
    if values.size <= BLOCK:
        return math.isfinite(np.vdot(values, values))  # in half the time of a sum
    return math.isfinite(np.add.reduce(values, axis=None))


def find_fault(predictions: Float32s, answer: Float32s) -> tuple[int, int] | None:
    """Return the first member, and its first sample, with numbers that are not finite, by index; None without one.

    `predictions` are (members, samples, *output), `answer` (samples, *output). If finite numbers have a sum that is
    not finite, the member with the largest number is at fault.
    """
    places = np.argwhere(~np.isfinite(predictions))
    if len(places):
        return int(places[0, 0]), int(places[0, 1])
    rows = np.argwhere(~np.isfinite(answer))
    if not len(rows):
        return None
    sample = int(rows[0, 0])
    return int(np.abs(predictions[:, sample]).reshape(len(predictions), -1).max(axis=1).argmax()), sample
