from __future__ import annotations

import time

import pytest

from ripieno.engine.supervisor import Supervisor
from ripieno.engine.watch import Patience, Watch


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
    watch = Watch(members, Patience(**patience), supervisor)
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
