"""What the engine counts while it works."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from ripieno.engine.inference_result import MemberStats
from ripieno.engine.request import Request
from ripieno.engine.ring_types import BatchAssignment


class EngineCounters:
    """Sums since the start; changed under the dispatcher's lock."""

    def __init__(self, members: int, lanes: int) -> None:
        self.requests = self.samples = self.partial = self.failed = 0
        self._members = [_Sum() for _ in range(members)]
        self._lanes = [_Sum() for _ in range(lanes)]
        self._seats: defaultdict[tuple[int, int], float] = defaultdict(float)

    def count(self, claim: BatchAssignment, seconds: float) -> None:
        """A claim was predicted in `seconds`."""
        for work in (self._members[claim.member], self._lanes[claim.lane]):
            work.batches += 1
            work.samples += claim.samples
            work.waiting += claim.waited
            work.computing += seconds
        self._seats[claim.lane, claim.member] += seconds

    def combined(self, lane: int, seconds: float) -> None:
        """What a lane had finished was combined in `seconds`."""
        self._lanes[lane].combining += seconds

    @property
    def combining(self) -> float:
        """Seconds spent combining."""
        return sum(lane.combining for lane in self._lanes)

    def answered(self, request: Request) -> None:
        """A request has its answer."""
        self.requests += 1
        self.samples += request.samples
        self.partial += request.partial

    def member(self, index: int) -> MemberStats:
        """Work of a member; combining takes as long for every prediction, whoever made it."""
        work, samples = self._members[index].work(), sum(member.samples for member in self._members)
        return dataclasses.replace(work, combining=self.combining * work.samples / samples if samples else 0.0)

    def lane(self, index: int) -> MemberStats:
        """Work of a lane."""
        return self._lanes[index].work()

    def computing(self, lane: int, member: int) -> float:
        """Seconds that a lane spent on a member."""
        return self._seats.get((lane, member), 0.0)


class _Sum:
    __slots__ = ("batches", "combining", "computing", "samples", "waiting")

    def __init__(self) -> None:
        self.batches = self.samples = 0
        self.waiting = self.computing = self.combining = 0.0

    def work(self) -> MemberStats:
        return MemberStats(self.batches, self.samples, self.waiting, self.computing, self.combining)
