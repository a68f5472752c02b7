from __future__ import annotations

import os
import threading
import time

from ripieno.engine.event_loop import EventLoop


def test_calls_run_in_order_of_their_times(event_loop):
    heard: list[int] = []
    done = threading.Event()
    now = time.monotonic()
    event_loop.at(now + 0.04, done.set)
    event_loop.at(now + 0.03, lambda: heard.append(2))
    event_loop.at(now + 0.01, lambda: heard.append(1))
    assert done.wait(5)
    assert heard == [1, 2]


def test_a_call_that_comes_before_all_others_does_not_wait_for_them(event_loop):
    done = threading.Event()
    later = event_loop.at(time.monotonic() + 60, lambda: None)
    event_loop.wait_for(lambda: None)  # now it waits
    event_loop.at(time.monotonic() + 0.01, done.set)
    assert done.wait(5)
    later.cancel()


def test_what_is_asked_after_the_end_is_never_run():
    heard: list[int] = []
    event_loop = EventLoop(lambda error: None)
    event_loop.start()
    event_loop.stop()
    event_loop.at(time.monotonic(), lambda: heard.append(1))
    event_loop.soon(lambda: heard.append(2))
    assert not event_loop._times
    assert not heard


def test_a_cancelled_call_does_not_run_and_releases_its_references(event_loop):
    heard: list[int] = []
    later = time.monotonic() + 60
    timers = [event_loop.at(later, lambda: heard.append(1)) for _ in range(100)]
    for timer in timers:
        timer.cancel()
        timer.cancel()
    assert len(event_loop._times) <= 1
    event_loop.wait_for(lambda: None)
    assert not heard


def test_a_readable_descriptor_is_read_until_it_is_no_longer_watched(event_loop):
    reading, writing = os.pipe()
    heard = threading.Event()

    def hear():
        os.read(reading, 10)
        event_loop.unwatch(reading)
        heard.set()

    event_loop.wait_for(lambda: event_loop.watch(reading, hear))
    os.write(writing, b"x")
    assert heard.wait(5)
    os.write(writing, b"y")
    event_loop.wait_for(lambda: None)
    assert os.read(reading, 10) == b"y"
    os.close(reading)
    os.close(writing)


def test_a_call_that_fails_is_reported_and_the_next_still_runs():
    failures: list[Exception] = []
    event_loop = EventLoop(failures.append)
    event_loop.start()
    event_loop.soon(lambda: 1 / 0)
    event_loop.wait_for(lambda: None)
    event_loop.stop()
    event_loop.stop()
    assert [type(failure) for failure in failures] == [ZeroDivisionError]
