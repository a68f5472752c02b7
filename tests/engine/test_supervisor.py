from __future__ import annotations

import os
import threading
import time

import pytest

from ripieno.engine.supervisor import Supervisor


@pytest.fixture
def supervisor():
    failures: list[Exception] = []
    made = Supervisor(failures.append)
    made.start()
    yield made
    made.stop()
    assert not failures


def test_calls_run_in_order_of_their_times(supervisor):
    heard: list[int] = []
    done = threading.Event()
    now = time.monotonic()
    supervisor.at(now + 0.04, done.set)
    supervisor.at(now + 0.03, lambda: heard.append(2))
    supervisor.at(now + 0.01, lambda: heard.append(1))
    assert done.wait(5)
    assert heard == [1, 2]


def test_a_call_that_comes_before_all_others_does_not_wait_for_them(supervisor):
    done = threading.Event()
    later = supervisor.at(time.monotonic() + 60, lambda: None)
    supervisor.wait_for(lambda: None)  # now it waits
    supervisor.at(time.monotonic() + 0.01, done.set)
    assert done.wait(5)
    later.cancel()


def test_what_is_asked_after_the_end_is_never_run():
    heard: list[int] = []
    supervisor = Supervisor(lambda error: None)
    supervisor.start()
    supervisor.stop()
    supervisor.at(time.monotonic(), lambda: heard.append(1))
    supervisor.soon(lambda: heard.append(2))
    assert not supervisor._times
    assert not heard


def test_a_cancelled_call_does_not_run_and_releases_its_references(supervisor):
    heard: list[int] = []
    later = time.monotonic() + 60
    timers = [supervisor.at(later, lambda: heard.append(1)) for _ in range(100)]
    for timer in timers:
        timer.cancel()
        timer.cancel()
    assert len(supervisor._times) <= 1
    supervisor.wait_for(lambda: None)
    assert not heard


def test_a_readable_descriptor_is_read_until_it_is_no_longer_watched(supervisor):
    reading, writing = os.pipe()
    heard = threading.Event()

    def hear():
        os.read(reading, 10)
        supervisor.unwatch(reading)
        heard.set()

    supervisor.wait_for(lambda: supervisor.watch(reading, hear))
    os.write(writing, b"x")
    assert heard.wait(5)
    os.write(writing, b"y")
    supervisor.wait_for(lambda: None)
    assert os.read(reading, 10) == b"y"
    os.close(reading)
    os.close(writing)


def test_a_call_that_fails_is_reported_and_the_next_still_runs():
    failures: list[Exception] = []
    supervisor = Supervisor(failures.append)
    supervisor.start()
    supervisor.soon(lambda: 1 / 0)
    supervisor.wait_for(lambda: None)
    supervisor.stop()
    supervisor.stop()
    assert [type(failure) for failure in failures] == [ZeroDivisionError]
