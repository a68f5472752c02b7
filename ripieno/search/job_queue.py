"""The jobs of a search that have no result yet: which run, which wait, and when one more would start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from ripieno.search.scheduler import Decision


class JobQueue:
    """Jobs in the order in which a pool takes them: as many run as there are slots, the others wait."""

    def __init__(self) -> None:
        self.running: dict[Decision, float] = {}
        """since when, in Unix seconds"""
        self.waiting: deque[Decision] = deque()
        self.started: list[Decision] = []
        """that began to run since the watcher was last told"""

    def __bool__(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, decision: Decision, slots: int, now: float) -> None:
        """`decision` was issued."""
        self.waiting.append(decision)
        self._start(slots, now)

    def remove(self, decision: Decision, slots: int, now: float) -> None:
        """`decision` ended."""
        if self.running.pop(decision, None) is None:
            self.waiting.remove(decision)
        self._start(slots, now)

    def _start(self, slots: int, now: float) -> None:
        while self.waiting and len(self.running) < slots:
            decision = self.waiting.popleft()
            self.running[decision] = now
            self.started.append(decision)

    def free(self, seconds: Callable[[Decision], float], slots: int, now: float) -> float:
        """When a job issued `now` would start, if each takes `seconds`."""
        if len(self.running) < slots:
            return now
        ends = [max(now, since + seconds(decision)) for decision, since in self.running.items()]
        heapify(ends)
        for decision in self.waiting:
            heappush(ends, heappop(ends) + seconds(decision))
        return ends[0]
