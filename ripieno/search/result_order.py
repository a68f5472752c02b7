"""Order in which results reach the scheduler: as they arrive, or in a reproducible virtual time.

Theory of operation. An asynchronous search decides by the results it has, so its decisions depend on which job happens
to finish first: on the machine's load, on kills, on the number of slots. `ArrivalOrder` accepts that. `VirtualOrder`
simulates a fixed number of workers (the window) on which every job takes exactly its cost, which is computed from its
configuration, and reports results in the order in which *those* workers would deliver them. A result that arrives
early is kept; while the next one in virtual time has not arrived, no decision is made. The window is wider than the
number of real slots, so the jobs issued ahead keep the slots busy. The decisions then depend on the results alone.

Pure: it reads no clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from heapq import heappop, heappush
from typing import Literal

from ripieno.search.scheduler import TrialStep

OrderName = Literal["virtual", "arrival"]


class ResultOrder(ABC):
    """Queue between the results that arrive and the scheduler that gets them; at most `window` unreported jobs."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.told = 0
        """number of results returned by `due`"""
        self._issued = 0

    @property
    def room(self) -> bool:
        """True if another job may be issued now."""
        return self._issued - self.told < self.window

    def issued(self, step: TrialStep, cost: float) -> None:  # noqa: ARG002
        """Record an issued job; `cost` is its duration in virtual time."""
        self._issued += 1

    @abstractmethod
    def arrived(self, step: TrialStep) -> None:
        """Record that the result of an issued job arrived."""

    @abstractmethod
    def due(self) -> TrialStep | None:
        """Return, once, the job with the next result to report to the scheduler; None: wait."""


class ArrivalOrder(ResultOrder):
    """First in, first out; the window may change.

    A result makes room when it is reported, not before: the job issued next depends on it, and results that arrive
    together then lead to the same jobs as results that arrive one by one.
    """

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self._arrived: deque[TrialStep] = deque()

    def arrived(self, step: TrialStep) -> None:
        """See `ResultOrder.arrived`."""
        self._arrived.append(step)

    def due(self) -> TrialStep | None:
        """See `ResultOrder.due`."""
        if not self._arrived:
            return None
        self.told += 1
        return self._arrived.popleft()


class VirtualOrder(ResultOrder):
    """Order in which `window` virtual workers would deliver results."""

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self._clock = 0.0
        self._running: list[tuple[float, int, TrialStep]] = []  # a heap by (virtual finish, number of issue)
        self._arrived: set[TrialStep] = set()

    def issued(self, step: TrialStep, cost: float) -> None:
        """See `ResultOrder.issued`."""
        heappush(self._running, (self._clock + cost, self._issued, step))
        super().issued(step, cost)

    def arrived(self, step: TrialStep) -> None:
        """See `ResultOrder.arrived`."""
        self._arrived.add(step)

    def due(self) -> TrialStep | None:
        """See `ResultOrder.due`."""
        if not self._running or self._running[0][2] not in self._arrived:
            return None
        self._clock, _, step = heappop(self._running)
        self._arrived.remove(step)
        self.told += 1
        return step


def make_order(name: OrderName, window: int) -> ResultOrder:
    """Return the order called `name`."""
    return VirtualOrder(window) if name == "virtual" else ArrivalOrder(window)
