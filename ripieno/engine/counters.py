"""Counters of the engine."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass

from ripieno.engine.inference_result import MemberStats
from ripieno.engine.request import Request
from ripieno.engine.ring import BatchAssignment


class EngineCounters:
    """Sums since the start; changed under the lock of the request table."""

    def __init__(self, members: int, workers: int) -> None:
        self.requests = self.samples = self.partial = self.failed = 0
        self._members = [_Sum() for _ in range(members)]
        self._workers = [_Sum() for _ in range(workers)]
        self._computing: defaultdict[tuple[int, int], float] = defaultdict(float)

    def count(self, assignment: BatchAssignment, seconds: float) -> None:
        """Count an assignment that was predicted in `seconds`."""
        for work in (self._members[assignment.member], self._workers[assignment.worker]):
            work.batches += 1
            work.samples += assignment.samples
            work.waiting += assignment.waited
            work.computing += seconds
        self._computing[assignment.worker, assignment.member] += seconds

    def combined(self, worker: int, seconds: float) -> None:
        """Count the `seconds` in which the finished slices of a worker were combined."""
        self._workers[worker].combining += seconds

    @property
    def combining(self) -> float:
        """Seconds spent combining."""
        return sum(worker.combining for worker in self._workers)

    def answered(self, request: Request) -> None:
        """Count an answered request."""
        self.requests += 1
        self.samples += request.samples
        self.partial += request.partial

    def member(self, index: int) -> MemberStats:
        """Return the work of a member; combining takes the same time for the predictions of every member."""
        work, samples = self._members[index].work(), sum(member.samples for member in self._members)
        return dataclasses.replace(work, combining=self.combining * work.samples / samples if samples else 0.0)

    def worker(self, index: int) -> MemberStats:
        """Return the work of a worker."""
        return self._workers[index].work()

    def computing(self, worker: int, member: int) -> float:
        """Return the seconds that a worker computed for a member."""
        return self._computing.get((worker, member), 0.0)


@dataclass(slots=True)
class _Sum:
    batches: int = 0
    samples: int = 0
    waiting: float = 0.0
    computing: float = 0.0
    combining: float = 0.0

    def work(self) -> MemberStats:
        return MemberStats(*dataclasses.astuple(self))
