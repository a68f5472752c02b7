"""The watch over lanes: which are up, when one that died is started again, and which hang and must be killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ripieno.durations import check_duration
from ripieno.engine.memory_limit import is_exceeded
from ripieno.engine.ring_types import BatchAssignment
from ripieno.engine.supervisor import Supervisor
from ripieno.engine.worker import Worker
from ripieno.errors import EngineError


@dataclass(frozen=True)
class RestartPolicy:
    """When lanes are given up and tried again; seconds."""

    ping: float = 10.0
    """longest unanswered ping of a lane process"""
    stall: float = 60.0
    """longest a task may take, or 20 times its expected duration where that is more"""
    loading: float = 300.0
    """longest a lane may take to load its members"""
    check: float = 1.0
    """time between two looks"""
    deaths: int = 3
    """lane deaths over the same samples, or before coming up, after which requests fail"""
    back_off: float = 0.1
    """wait before the second restart in a row (the first is at once); doubles while the lane does not come up"""
    longest_back_off: float = 5.0

    def __post_init__(self) -> None:
        for name in ("ping", "stall", "loading", "check", "back_off", "longest_back_off"):
            check_duration(getattr(self, name), name, zero=name in ("back_off", "longest_back_off"), error=EngineError)
        if self.deaths < 1:
            raise EngineError(f"deaths {self.deaths} must be at least 1")


@dataclass
class WorkerHealth:
    """What is known of a lane."""

    members: tuple[int, ...]
    up: bool = False
    waiting: bool = True
    """for its start"""
    consecutive_failures: int = 0
    """deaths since its last finished task"""
    failed_starts: int = 0
    """deaths since it was last up: they are held against its members, others against the samples it worked on"""
    restarts: int = 0
    last_activity: float = field(default_factory=time.monotonic)
    """when it last started, came up, or finished a task"""


class HealthMonitor:
    """States of all lanes. Changed under the desk's lock, save in `_look` and `_start`, which the supervisor runs."""

    def __init__(
        self,
        members: Sequence[tuple[int, ...]],
        patience: RestartPolicy,
        supervisor: Supervisor,
        caps: Sequence[int] = (),
    ) -> None:
        """`caps` are the most bytes that each lane's process may take, 0 for any; without them all may take any."""
        self._caps = caps or (0,) * len(members)
        self.states = [WorkerHealth(own) for own in members]
        self.patience = patience
        self._supervisor = supervisor
        self._lanes: Sequence[Worker] = ()
        self._running: Callable[[int], BatchAssignment | None]
        self._dead: Callable[[int, str, bool], None]
        self._closed = False

    def begin(
        self,
        lanes: Sequence[Worker],
        running: Callable[[int], BatchAssignment | None],
        dead: Callable[[int, str, bool], None],
    ) -> None:
        """Start all lanes. `running` tells a lane's oldest claim; `dead` is called for a lane that cannot start."""
        self._lanes, self._running, self._dead = lanes, running, dead
        for index in range(len(lanes)):
            self._supervisor.soon(lambda index=index: self._start(index))  # type: ignore[misc]
        self._supervisor.at(time.monotonic() + self.patience.check, self._look)

    def end(self) -> None:
        """Start none again. Supervisor's thread, after which the lanes can be closed."""
        self._closed = True

    @property
    def all_up(self) -> bool:
        """Whether every lane can work."""
        return all(state.up for state in self.states)

    def rose(self, lane: int, now: float) -> None:
        """A lane has loaded its members."""
        state = self.states[lane]
        state.up, state.failed_starts, state.last_activity = True, 0, now

    def worked(self, lane: int, now: float) -> None:
        """A lane has finished a task."""
        self.states[lane].consecutive_failures, self.states[lane].last_activity = 0, now

    def died(self, lane: int, now: float) -> list[int]:
        """A lane died and will be started again, at once or after a wait. Returns members without hope for now: all
        their lanes died too often before they came up."""
        state = self.states[lane]
        state.failed_starts += not state.up
        state.up, state.waiting = False, True
        state.consecutive_failures += 1
        state.restarts += 1
        wait = self.patience.back_off if state.consecutive_failures > 1 else 0.0
        if state.failed_starts > 1:
            wait = min(wait * 2 ** (state.failed_starts - 2), self.patience.longest_back_off)
        self._supervisor.at(now + wait, lambda: self._start(lane))
        return [member for member in state.members if self._hopeless(member)]

    def gives_up(self, lane: int) -> bool:
        """Whether a lane died too often before it came up."""
        return self.states[lane].failed_starts >= self.patience.deaths

    def _hopeless(self, member: int) -> bool:
        homes = [state for state in self.states if member in state.members]
        return all(not state.up and state.failed_starts >= self.patience.deaths for state in homes)

    def _start(self, lane: int) -> None:
        if self._closed:
            return
        state = self.states[lane]
        state.waiting, state.last_activity = False, time.monotonic()
        try:
            self._lanes[lane].start()
        except OSError as error:  # no memory, no processes: it may get better
            self._dead(lane, f"it cannot be started: {error}", False)

    def _look(self) -> None:
        """Kill lanes that hang; runs every `patience.check` seconds."""
        now = time.monotonic()
        for index, state in enumerate(self.states):
            if not state.waiting and (cause := self._hangs(index, state, now)):
                self._lanes[index].kill(cause)
        self._supervisor.at(now + self.patience.check, self._look)

    def _hangs(self, index: int, state: WorkerHealth, now: float) -> str:
        """Why a lane must be killed; empty when it need not."""
        if cause := is_exceeded(self._caps[index], self._lanes[index].process):
            return cause
        silent = self._lanes[index].ping(now)
        if silent > self.patience.ping:
            return f"it did not answer a ping for {silent:.1f} s"
        if not state.up:
            late = now - state.last_activity > self.patience.loading
            return f"it did not load within {self.patience.loading:g} s" if late else ""
        claim = self._running(index)
        idle = now - max(claim.since, state.last_activity) if claim else 0.0
        if claim and idle > max(self.patience.stall, 20 * claim.seconds):
            return f"it made no progress for {idle:.1f} s"
        return ""
