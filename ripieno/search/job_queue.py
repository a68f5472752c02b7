"""Queue model of the jobs of a search without a result: running, waiting, and when another would start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from ripieno.search.scheduler import TrialStep


class JobQueue:
    """Jobs in the order in which a pool takes them: one runs per slot, the rest wait."""

    def __init__(self) -> None:
        self.running: dict[TrialStep, float] = {}
        """start time of each, in Unix seconds"""
        self.waiting: deque[TrialStep] = deque()
        self.started: list[TrialStep] = []
        """jobs that started to run since the last snapshot"""

    def __bool__(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, step: TrialStep, slots: int, now: float) -> None:
        """Add an issued job."""
        self.waiting.append(step)
        self._start(slots, now)

    def remove(self, step: TrialStep, slots: int, now: float) -> None:
        """Remove a job that ended."""
        if self.running.pop(step, None) is None:
            self.waiting.remove(step)
        self._start(slots, now)

    def _start(self, slots: int, now: float) -> None:
        while self.waiting and len(self.running) < slots:
            step = self.waiting.popleft()
            self.running[step] = now
            self.started.append(step)

    def free(self, seconds: Callable[[TrialStep], float], slots: int, now: float) -> float:
        """Return when a job issued `now` would start, if each job takes `seconds`."""
        if len(self.running) < slots:
            return now
        ends = [max(now, since + seconds(step)) for step, since in self.running.items()]
        heapify(ends)
        for step in self.waiting:
            heappush(ends, heappop(ends) + seconds(step))
        return ends[0]
