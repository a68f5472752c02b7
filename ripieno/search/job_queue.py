"""Queue model of the jobs of a search without a result: running, waiting, and when another would start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from ripieno.search.scheduler import Decision


class JobQueue:
    """Jobs in the order in which a pool takes them: one runs per slot, the rest wait."""

    def __init__(self) -> None:
        self.running: dict[Decision, float] = {}
        """start time of each, in Unix seconds"""
        self.waiting: deque[Decision] = deque()
        self.started: list[Decision] = []
        """jobs that started to run since the last snapshot"""

    def __bool__(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, decision: Decision, slots: int, now: float) -> None:
        """Add an issued job."""
        self.waiting.append(decision)
        self._start(slots, now)

    def remove(self, decision: Decision, slots: int, now: float) -> None:
        """Remove a job that ended."""
        if self.running.pop(decision, None) is None:
            self.waiting.remove(decision)
        self._start(slots, now)

    def _start(self, slots: int, now: float) -> None:
        while self.waiting and len(self.running) < slots:
            decision = self.waiting.popleft()
            self.running[decision] = now
            self.started.append(decision)

    def free(self, seconds: Callable[[Decision], float], slots: int, now: float) -> float:
        """Return when a job issued `now` would start, if each job takes `seconds`."""
        if len(self.running) < slots:
            return now
        ends = [max(now, since + seconds(decision)) for decision, since in self.running.items()]
        heapify(ends)
        for decision in self.waiting:
            heappush(ends, heappop(ends) + seconds(decision))
        return ends[0]
