"""In which order results reach the scheduler: as they arrive, or as they would in a reproducible virtual time.

Theory of operation. An asynchronous search decides by the results it has, so its decisions depend on which job happened
to finish first: on the machine's load, on kills, on the number of slots. `ArrivalOrder` accepts that. `VirtualOrder`
does not: it imagines a fixed number of workers (the window) on which every job takes exactly its cost, which is
computed from its configuration, and tells results in the order in which *those* workers would deliver them. A result
that arrives early is kept; when the next one in virtual time has not arrived, no decision is taken. As the window is
wider than the number of real slots, the jobs issued meanwhile keep the slots busy. The jobs decided then depend on the
results alone.

Decides only: it reads no clock.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Literal, Protocol

from ripieno.search.scheduler import Decision

OrderName = Literal["virtual", "arrival"]


class ResultOrder(Protocol):
    """Between results that come in and decisions that go out."""

    told: int
    """how many results were given out by `due`"""

    @property
    def room(self) -> bool:
        """Whether another job may be issued now."""
        ...

    def issued(self, decision: Decision, cost: float) -> None:
        """A job was issued; `cost` is its duration in virtual time."""
        ...

    def arrived(self, decision: Decision) -> None:
        """The result of a job issued is here."""
        ...

    def due(self) -> Decision | None:
        """The job whose result the scheduler must be told next; None: wait. Each is given out once."""
        ...


class ArrivalOrder:
    """First come, first told; at most `window` jobs that were not told, a number that may change.

    A result makes room when it is told, not before: the job that takes its place rests on it, and results that arrive
    together lead to the same jobs as the same results one after the other.
    """

    def __init__(self, window: int) -> None:
        self.told = 0
        self.window = window
        self._untold = 0
        self._arrived: deque[Decision] = deque()

    @property
    def room(self) -> bool:
        """See `Order.room`."""
        return self._untold < self.window

    def issued(self, decision: Decision, cost: float) -> None:  # noqa: ARG002
        """See `Order.issued`."""
        self._untold += 1

    def arrived(self, decision: Decision) -> None:
        """See `Order.arrived`."""
        self._arrived.append(decision)

    def due(self) -> Decision | None:
        """See `Order.due`."""
        if not self._arrived:
            return None
        self.told += 1
        self._untold -= 1
        return self._arrived.popleft()


class VirtualOrder:
    """Told as `window` virtual workers would deliver them; at most `window` jobs that were not told."""

    def __init__(self, window: int) -> None:
        self.told = 0
        self._window = window
        self._clock = 0.0
        self._issued = 0
        self._running: list[tuple[float, int, Decision]] = []  # a heap by (virtual finish, number of issue)
        self._arrived: set[Decision] = set()

    @property
    def room(self) -> bool:
        """See `Order.room`."""
        return len(self._running) < self._window

    def issued(self, decision: Decision, cost: float) -> None:
        """See `Order.issued`."""
        heappush(self._running, (self._clock + cost, self._issued, decision))
        self._issued += 1

    def arrived(self, decision: Decision) -> None:
        """See `Order.arrived`."""
        self._arrived.add(decision)

    def due(self) -> Decision | None:
        """See `Order.due`."""
        if not self._running or self._running[0][2] not in self._arrived:
            return None
        self._clock, _, decision = heappop(self._running)
        self._arrived.remove(decision)
        self.told += 1
        return decision


def make_order(name: OrderName, window: int) -> ResultOrder:
    """The order called `name`."""
    return VirtualOrder(window) if name == "virtual" else ArrivalOrder(window)
