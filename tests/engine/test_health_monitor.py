from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ripieno.engine import health_monitor
from ripieno.engine.health_monitor import HealthMonitor, RestartPolicy
from ripieno.engine.ring import BatchAssignment


class IdleWorker:
    """Worker that only records when it was started."""

    process = 0

    def __init__(self):
        self.starts: list[float] = []

    def start(self):
        self.starts.append(time.monotonic())

    def ping(self, now):
        return 0.0


def monitored(event_loop, workers, members, **patience):
    monitor = HealthMonitor(members, RestartPolicy(**patience), event_loop)
    monitor.begin(workers, lambda _: None, lambda *_: None)
    event_loop.wait_for(lambda: None)
    return monitor


def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


def test_a_worker_that_died_once_is_restarted_at_once(event_loop):
    worker = IdleWorker()
    monitor = monitored(event_loop, [worker], [(0,)], back_off=60.0)
    monitor.rose(0, 0.0)
    assert monitor.died(0, time.monotonic()) == []
    until(lambda: len(worker.starts) == 2)
    assert monitor.states[0].restarts == 1


def test_a_worker_that_does_not_come_up_waits_ever_longer(event_loop):
    worker = IdleWorker()
    monitor = monitored(event_loop, [worker], [(0,)], back_off=0.02, deaths=100)
    for count in range(2, 6):
        monitor.died(0, time.monotonic())
        until(lambda count=count: len(worker.starts) == count)
    gaps = [after - before for before, after in zip(worker.starts, worker.starts[1:], strict=False)]
    assert gaps[3] > 0.07 > gaps[0]


def test_members_are_given_up_when_all_their_workers_died_before_they_came_up(event_loop):
    monitor = monitored(event_loop, [IdleWorker(), IdleWorker()], [(0, 1), (1, 2)], deaths=2, back_off=0.0)
    assert monitor.died(0, 0.0) == []
    assert monitor.died(0, 0.0) == [0]
    assert monitor.died(1, 0.0) == []
    assert monitor.died(1, 0.0) == [1, 2]


def test_deaths_at_work_are_not_counted_against_the_members(event_loop):
    monitor = monitored(event_loop, [IdleWorker()], [(0,)], deaths=1, back_off=0.0)
    for _ in range(5):
        monitor.rose(0, 0.0)
        assert monitor.died(0, 0.0) == []


def test_coming_up_clears_the_deaths_before_it(event_loop):
    monitor = monitored(event_loop, [IdleWorker()], [(0,)], deaths=3, back_off=0.0)
    for _ in range(4):
        assert monitor.died(0, 0.0) == []
        assert monitor.died(0, 0.0) == []
        monitor.rose(0, 0.0)
        assert monitor.died(0, 0.0) == []
        monitor.rose(0, 0.0)


def test_after_the_end_no_worker_is_started(event_loop):
    worker = IdleWorker()
    monitor = monitored(event_loop, [worker], [(0,)])
    monitor.rose(0, 0.0)
    monitor.end()
    monitor.died(0, time.monotonic())
    event_loop.wait_for(lambda: None)
    assert len(worker.starts) == 1


class Simulation:
    """An event loop, a simulated clock and one worker of member 0."""

    process = 0

    def __init__(self) -> None:
        self.now = 0.0
        self.silent = 0.0
        self.assignment: BatchAssignment | None = None
        self.causes: list[str] = []
        self.starts: list[float] = []
        self._later: list[tuple[float, Callable[[], None]]] = []

    def begin(self, **patience: float) -> None:
        self.monitor = HealthMonitor([(0,)], RestartPolicy(**patience), self)  # type: ignore[arg-type]
        self.monitor.begin([self], lambda _: self.assignment, lambda *_: None)  # type: ignore[list-item]

    # the event loop

    def soon(self, act: Callable[[], None]) -> None:
        self.at(self.now, act)

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._later.append((when, act))

    # the worker

    def start(self) -> None:
        self.starts.append(self.now)

    def ping(self, now: float) -> float:
        return self.silent

    def kill(self, cause: str) -> None:
        self.causes.append(cause)

    # events

    def pass_until(self, end: float) -> list[str]:
        """Let time pass; return the causes for which the worker was killed."""
        self.causes.clear()
        while due := [later for later in self._later if later[0] <= end]:
            first = min(due, key=lambda later: later[0])
            self._later.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = end
        return list(self.causes)

    def works(self, since: float, seconds: float) -> None:
        """Give the worker an assignment at `since` that takes `seconds`."""
        self.assignment = BatchAssignment(0, 0, 0, [(0, 1)], 1, 0, since, 0.0, seconds)

    def dies(self) -> None:
        self.monitor.died(0, self.now)


@pytest.fixture
def simulation(monkeypatch):
    """Simulation that sets the clock of the health monitor."""
    some = Simulation()
    monkeypatch.setattr(health_monitor.time, "monotonic", lambda: some.now)
    return some


def test_a_worker_that_answers_no_ping_is_killed_and_one_that_does_is_not(simulation):
    simulation.begin(ping=10.0)
    simulation.pass_until(0.5)
    simulation.monitor.rose(0, 0.5)
    simulation.silent = 10.0
    assert simulation.pass_until(2.5) == []
    simulation.silent = 10.5
    assert simulation.pass_until(3.5) == ["The worker did not answer a ping for 10.5 s"]


def test_a_worker_that_does_not_load_in_time_is_killed_and_one_that_is_up_may_be_idle_forever(simulation):
    simulation.begin(loading=30.0)
    assert simulation.pass_until(30.0) == []
    assert simulation.pass_until(31.0) == ["The worker did not load its members within 30 s"]
    simulation.monitor.rose(0, 31.0)
    assert simulation.pass_until(1000.0) == []


def test_a_worker_that_waits_to_be_started_is_not_killed(simulation):
    simulation.begin(loading=30.0, back_off=200.0, longest_back_off=200.0)
    simulation.pass_until(0.5)
    simulation.dies()
    simulation.pass_until(0.6)
    simulation.dies()
    assert simulation.pass_until(150.0) == []
    assert simulation.starts == [0.0, 0.5]


def test_a_task_may_take_its_time_and_no_longer(simulation):
    simulation.begin(stall=60.0)
    simulation.pass_until(0.5)
    simulation.monitor.rose(0, 0.5)
    simulation.works(100.0, 0.1)
    assert simulation.pass_until(160.0) == []
    assert simulation.pass_until(161.0) == ["The worker made no progress for 61.0 s"]


def test_a_long_task_may_take_twenty_times_what_is_expected(simulation):
    simulation.begin(stall=60.0)
    simulation.pass_until(0.5)
    simulation.monitor.rose(0, 0.5)
    simulation.works(100.0, 10.0)
    assert simulation.pass_until(300.0) == []
    assert simulation.pass_until(301.0) == ["The worker made no progress for 201.0 s"]


def test_a_task_that_waited_behind_another_is_timed_from_the_end_of_that_one(simulation):
    simulation.begin(stall=60.0)
    simulation.pass_until(0.5)
    simulation.monitor.rose(0, 0.5)
    simulation.works(1.0, 0.1)  # handed out ahead
    simulation.monitor.worked(0, 50.0)
    assert simulation.pass_until(110.0) == []
    assert simulation.pass_until(111.0) == ["The worker made no progress for 61.0 s"]


def test_restarts_are_spaced_twice_as_far_each_time_up_to_a_limit_and_restart_after_work(simulation):
    simulation.begin(back_off=1.0, longest_back_off=4.0, deaths=100)
    simulation.pass_until(0.0)
    waits = []
    for _ in range(6):
        died = simulation.now
        simulation.dies()
        simulation.pass_until(died + 10.0)
        waits.append(simulation.starts[-1] - died)
    assert waits == [0.0, 1.0, 2.0, 4.0, 4.0, 4.0]
    simulation.monitor.rose(0, simulation.now)
    simulation.monitor.worked(0, simulation.now)
    died = simulation.now
    simulation.dies()
    simulation.pass_until(died + 10.0)
    assert simulation.starts[-1] == died


def test_a_worker_that_dies_at_work_again_and_again_waits_the_same_each_time(simulation):
    simulation.begin(back_off=1.0)
    simulation.pass_until(0.0)
    waits = []
    for _ in range(4):
        simulation.monitor.rose(0, simulation.now)
        died = simulation.now
        simulation.dies()
        simulation.pass_until(died + 10.0)
        waits.append(simulation.starts[-1] - died)
    assert waits == [0.0, 1.0, 1.0, 1.0]
