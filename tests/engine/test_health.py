from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ripieno.engine import health
from ripieno.engine.health import HealthMonitor, RestartPolicy
from ripieno.engine.ring_types import BatchAssignment
from ripieno.engine.supervisor import Supervisor


class Still:
    """A lane that only remembers when it was started."""

    process = 0

    def __init__(self):
        self.starts: list[float] = []

    def start(self):
        self.starts.append(time.monotonic())

    def ping(self, now):
        return 0.0


@pytest.fixture
def supervisor():
    failures: list[Exception] = []
    made = Supervisor(failures.append)
    made.start()
    yield made
    made.stop()
    assert not failures


def watched(supervisor, lanes, members, **patience):
    watch = HealthMonitor(members, RestartPolicy(**patience), supervisor)
    watch.begin(lanes, lambda _: None, lambda *_: None)
    supervisor.wait_for(lambda: None)
    return watch


def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


def test_a_lane_that_died_once_is_started_again_at_once(supervisor):
    lane = Still()
    watch = watched(supervisor, [lane], [(0,)], back_off=60.0)
    watch.rose(0, 0.0)
    assert watch.died(0, time.monotonic()) == []
    until(lambda: len(lane.starts) == 2)
    assert watch.states[0].restarts == 1


def test_a_lane_that_does_not_come_up_waits_ever_longer(supervisor):
    lane = Still()
    watch = watched(supervisor, [lane], [(0,)], back_off=0.02, deaths=100)
    for count in range(2, 6):
        watch.died(0, time.monotonic())
        until(lambda count=count: len(lane.starts) == count)
    gaps = [after - before for before, after in zip(lane.starts, lane.starts[1:], strict=False)]
    assert gaps[3] > 0.07 > gaps[0]


def test_members_are_given_up_when_all_their_lanes_died_before_they_came_up(supervisor):
    watch = watched(supervisor, [Still(), Still()], [(0, 1), (1, 2)], deaths=2, back_off=0.0)
    assert watch.died(0, 0.0) == []
    assert watch.died(0, 0.0) == [0]
    assert watch.died(1, 0.0) == []
    assert watch.died(1, 0.0) == [1, 2]


def test_deaths_at_work_are_not_held_against_the_members(supervisor):
    watch = watched(supervisor, [Still()], [(0,)], deaths=1, back_off=0.0)
    for _ in range(5):
        watch.rose(0, 0.0)
        assert watch.died(0, 0.0) == []


def test_coming_up_clears_the_deaths_before_it(supervisor):
    watch = watched(supervisor, [Still()], [(0,)], deaths=3, back_off=0.0)
    for _ in range(4):
        assert watch.died(0, 0.0) == []
        assert watch.died(0, 0.0) == []
        watch.rose(0, 0.0)
        assert watch.died(0, 0.0) == []
        watch.rose(0, 0.0)


def test_after_the_end_no_lane_is_started(supervisor):
    lane = Still()
    watch = watched(supervisor, [lane], [(0,)])
    watch.rose(0, 0.0)
    watch.end()
    watch.died(0, time.monotonic())
    supervisor.wait_for(lambda: None)
    assert len(lane.starts) == 1


class Day:
    """A supervisor, a clock and one lane of member 0, in a time of their own."""

    process = 0

    def __init__(self) -> None:
        self.now = 0.0
        self.silent = 0.0
        self.claim: BatchAssignment | None = None
        self.causes: list[str] = []
        self.starts: list[float] = []
        self._later: list[tuple[float, Callable[[], None]]] = []

    def begin(self, **patience: float) -> None:
        self.watch = HealthMonitor([(0,)], RestartPolicy(**patience), self)  # type: ignore[arg-type]
        self.watch.begin([self], lambda _: self.claim, lambda *_: None)  # type: ignore[list-item]

    # a supervisor

    def soon(self, act: Callable[[], None]) -> None:
        self.at(self.now, act)

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._later.append((when, act))

    # a lane

    def start(self) -> None:
        self.starts.append(self.now)

    def ping(self, now: float) -> float:
        return self.silent

    def kill(self, cause: str) -> None:
        self.causes.append(cause)

    # what happens

    def pass_until(self, end: float) -> list[str]:
        """Time passes; why the lane was killed meanwhile."""
        self.causes.clear()
        while due := [later for later in self._later if later[0] <= end]:
            first = min(due, key=lambda later: later[0])
            self._later.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = end
        return list(self.causes)

    def works(self, since: float, seconds: float) -> None:
        """The lane holds a claim handed out at `since` that takes `seconds`."""
        self.claim = BatchAssignment(0, 0, 0, [(0, 1)], 1, 0, since, 0.0, seconds)

    def dies(self) -> None:
        self.watch.died(0, self.now)


@pytest.fixture
def day(monkeypatch):
    """A day whose time is what the watch reads."""
    some = Day()
    monkeypatch.setattr(health.time, "monotonic", lambda: some.now)
    return some


def test_a_lane_that_answers_no_ping_is_killed_and_one_that_does_is_not(day):
    day.begin(ping=10.0)
    day.pass_until(0.5)
    day.watch.rose(0, 0.5)
    day.silent = 10.0
    assert day.pass_until(2.5) == []
    day.silent = 10.5
    assert day.pass_until(3.5) == ["it did not answer a ping for 10.5 s"]


def test_a_lane_that_does_not_load_in_time_is_killed_and_one_that_is_up_may_be_idle_for_ever(day):
    day.begin(loading=30.0)
    assert day.pass_until(30.0) == []
    assert day.pass_until(31.0) == ["it did not load within 30 s"]
    day.watch.rose(0, 31.0)
    assert day.pass_until(1000.0) == []


def test_a_lane_that_waits_to_be_started_is_not_killed(day):
    day.begin(loading=30.0, back_off=200.0, longest_back_off=200.0)
    day.pass_until(0.5)
    day.dies()
    day.pass_until(0.6)
    day.dies()
    assert day.pass_until(150.0) == []
    assert day.starts == [0.0, 0.5]


def test_a_task_may_take_its_time_and_no_longer(day):
    day.begin(stall=60.0)
    day.pass_until(0.5)
    day.watch.rose(0, 0.5)
    day.works(100.0, 0.1)
    assert day.pass_until(160.0) == []
    assert day.pass_until(161.0) == ["it made no progress for 61.0 s"]


def test_a_long_task_may_take_twenty_times_what_is_expected(day):
    day.begin(stall=60.0)
    day.pass_until(0.5)
    day.watch.rose(0, 0.5)
    day.works(100.0, 10.0)
    assert day.pass_until(300.0) == []
    assert day.pass_until(301.0) == ["it made no progress for 201.0 s"]


def test_a_task_that_waited_behind_another_is_timed_from_the_end_of_that_one(day):
    day.begin(stall=60.0)
    day.pass_until(0.5)
    day.watch.rose(0, 0.5)
    day.works(1.0, 0.1)  # handed out ahead
    day.watch.worked(0, 50.0)
    assert day.pass_until(110.0) == []
    assert day.pass_until(111.0) == ["it made no progress for 61.0 s"]


def test_restarts_are_spaced_twice_as_far_each_time_up_to_a_limit_and_anew_after_work(day):
    day.begin(back_off=1.0, longest_back_off=4.0, deaths=100)
    day.pass_until(0.0)
    waits = []
    for _ in range(6):
        died = day.now
        day.dies()
        day.pass_until(died + 10.0)
        waits.append(day.starts[-1] - died)
    assert waits == [0.0, 1.0, 2.0, 4.0, 4.0, 4.0]
    day.watch.rose(0, day.now)
    day.watch.worked(0, day.now)
    died = day.now
    day.dies()
    day.pass_until(died + 10.0)
    assert day.starts[-1] == died


def test_a_lane_that_dies_at_work_again_and_again_waits_the_same_each_time(day):
    day.begin(back_off=1.0)
    day.pass_until(0.0)
    waits = []
    for _ in range(4):
        day.watch.rose(0, day.now)
        died = day.now
        day.dies()
        day.pass_until(died + 10.0)
        waits.append(day.starts[-1] - died)
    assert waits == [0.0, 1.0, 1.0, 1.0]
