"""Health monitoring of workers: their state, the restart of dead ones, and the detection of hanging ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ripieno.engine.config import RestartPolicy
from ripieno.engine.event_loop import EventLoop
from ripieno.engine.memory_limit import is_exceeded
from ripieno.engine.ring import BatchAssignment
from ripieno.engine.worker import Worker


@dataclass
class WorkerHealth:
    """State of a worker."""

    units: tuple[int, ...]
    up: bool = False
    waiting: bool = True
    """True while its start is scheduled"""
    consecutive_failures: int = 0
    """deaths since its last finished task"""
    failed_starts: int = 0
    """deaths since it was last up; they count against its units, deaths while up against the samples of its task"""
    restarts: int = 0
    last_activity: float = field(default_factory=time.monotonic)
    """time at which it last started, came up, or finished a task"""


class HealthMonitor:
    """States of all workers.

    They change under the lock of the request table, except in `_check_workers` and `_start`, which the event loop runs.
    """

    def __init__(
        self,
        units: Sequence[tuple[int, ...]],
        patience: RestartPolicy,
        event_loop: EventLoop,
        memory_limits: Sequence[int] = (),
    ) -> None:
        """Set up the states of workers of `units`; `memory_limits` are bytes of each process, 0: no limit (default)."""
        self._memory_limits = memory_limits or (0,) * len(units)
        self.states = [WorkerHealth(own) for own in units]
        self.patience = patience
        self._event_loop = event_loop
        self._workers: Sequence[Worker] = ()
        self._running: Callable[[int], BatchAssignment | None]
        self._dead: Callable[[int, str, bool], None]
        self._closed = False

    def begin(
        self,
        workers: Sequence[Worker],
        running: Callable[[int], BatchAssignment | None],
        dead: Callable[[int, str, bool], None],
    ) -> None:
        """Start all workers; `running` returns the oldest assignment of one, `dead` is called if one cannot start."""
        self._workers, self._running, self._dead = workers, running, dead
        for index in range(len(workers)):
            self._event_loop.soon(lambda index=index: self._start(index))  # type: ignore[misc]
        self._event_loop.at(time.monotonic() + self.patience.check, self._check_workers)

    def end(self) -> None:
        """Stop all restarts; afterwards the workers can be closed. The event loop's thread only."""
        self._closed = True

    @property
    def all_up(self) -> bool:
        """True if every worker is up."""
        return all(state.up for state in self.states)

    def rose(self, worker: int, now: float) -> None:
        """Record that a worker has loaded its members."""
        state = self.states[worker]
        state.up, state.failed_starts, state.last_activity = True, 0, now

    def worked(self, worker: int, now: float) -> None:
        """Record that a worker has finished a task."""
        self.states[worker].consecutive_failures, self.states[worker].last_activity = 0, now

    def died(self, worker: int, now: float) -> list[int]:
        """Schedule the restart of a dead worker, at once or after a wait.

        Returns the units that are unavailable for now: all their workers died too often before they came up.
        """
        state = self.states[worker]
        state.failed_starts += not state.up
        state.up, state.waiting = False, True
        state.consecutive_failures += 1
        state.restarts += 1
        wait = self.patience.back_off if state.consecutive_failures > 1 else 0.0
        if state.failed_starts > 1:
            wait = min(wait * 2 ** (state.failed_starts - 2), self.patience.longest_back_off)
        self._event_loop.at(now + wait, lambda: self._start(worker))
        return [unit for unit in state.units if self._is_failing(unit)]

    def gives_up(self, worker: int) -> bool:
        """Return whether a worker died too often before it came up."""
        return self.states[worker].failed_starts >= self.patience.deaths

    def _is_failing(self, unit: int) -> bool:
        holders = [state for state in self.states if unit in state.units]
        return all(not state.up and state.failed_starts >= self.patience.deaths for state in holders)

    def _start(self, worker: int) -> None:
        if self._closed:
            return
        state = self.states[worker]
        state.waiting, state.last_activity = False, time.monotonic()
        try:
            self._workers[worker].start()
        except OSError as error:  # out of memory or processes: a later start may succeed
            self._dead(worker, f"The worker cannot be started: {error}", False)

    def _check_workers(self) -> None:
        """Kill workers that hang; runs every `patience.check` seconds."""
        now = time.monotonic()
        for index, state in enumerate(self.states):
            if not state.waiting and (cause := self._find_failure(index, state, now)):
                self._workers[index].kill(cause)
        self._event_loop.at(now + self.patience.check, self._check_workers)

    def _find_failure(self, index: int, state: WorkerHealth, now: float) -> str:
        """Return the reason to kill a worker; empty if there is none."""
        if cause := is_exceeded(self._memory_limits[index], self._workers[index].process):
            return cause
        silent = self._workers[index].ping(now)
        if silent > self.patience.ping:
            return f"The worker did not answer a ping for {silent:.1f} s"
        if not state.up:
            late = now - state.last_activity > self.patience.loading
            return f"The worker did not load its members within {self.patience.loading:g} s" if late else ""
        assignment = self._running(index)
        idle = now - max(assignment.since, state.last_activity) if assignment else 0.0
        if assignment and idle > max(self.patience.stall, 20 * assignment.seconds):
            return f"The worker made no progress for {idle:.1f} s"
        return ""
