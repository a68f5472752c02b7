"""Counters of the engine."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ripieno.engine.inference_result import MemberStats
from ripieno.engine.request import Request
from ripieno.engine.ring import BatchAssignment


class EngineCounters:
    """Sums since the start; changed under the lock of the request table. `units` holds the members of each unit.

    Members of one unit predict in one call: its time is divided equally among them.
    """

    def __init__(self, units: Sequence[Sequence[int]], workers: int) -> None:
        self.requests = self.samples = self.partial = self.failed = 0
        self._sizes = [len(members) for members in units]
        self._unit_of = {member: unit for unit, members in enumerate(units) for member in members}
        self._units = [_Sum() for _ in units]
        self._workers = [_Sum() for _ in range(workers)]
        self._computing: defaultdict[tuple[int, int], float] = defaultdict(float)

    def count(self, assignment: BatchAssignment, seconds: float) -> None:
        """Count an assignment that was predicted in `seconds`."""
        for work in (self._units[assignment.unit], self._workers[assignment.worker]):
            work.batches += 1
            work.samples += assignment.samples
            work.waiting += assignment.waited
            work.computing += seconds
        self._computing[assignment.worker, assignment.unit] += seconds

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
        unit = self._unit_of[index]
        work = self._units[unit].work()
        samples = sum(one.samples * size for one, size in zip(self._units, self._sizes, strict=True))
        combining = self.combining * work.samples / samples if samples else 0.0
        return dataclasses.replace(work, computing=work.computing / self._sizes[unit], combining=combining)

    def worker(self, index: int) -> MemberStats:
        """Return the work of a worker."""
        return self._workers[index].work()

    def computing(self, worker: int, member: int) -> float:
        """Return the seconds that a worker computed for a member."""
        unit = self._unit_of[member]
        return self._computing.get((worker, unit), 0.0) / self._sizes[unit]


@dataclass(slots=True)
class _Sum:
    batches: int = 0
    samples: int = 0
    waiting: float = 0.0
    computing: float = 0.0
    combining: float = 0.0

    def work(self) -> MemberStats:
        return MemberStats(*dataclasses.astuple(self))
