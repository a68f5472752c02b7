"""Callbacks from other threads, work in other threads, and the measured lag of the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import httpx
import pytest

from ripieno.server.event_loop import HELD, CallbackBatcher, LoopLag, in_daemon_thread
from ripieno.server.run import ServerHandle
from tests.server.wire import soon


def watched(hold: float) -> LoopLag:
    """Return the lag of a loop that is blocked once for `hold` seconds."""

    async def run() -> LoopLag:
        lag = LoopLag()
        lag.start(asyncio.get_running_loop())
        await asyncio.sleep(0.05)
        time.sleep(hold)
        await asyncio.sleep(0.05)
        lag.stop()
        return lag

    return asyncio.run(run())


def test_a_loop_that_was_held_is_seen_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ripieno.server"):
        lag = watched(0.3)
    assert 0.28 <= lag.longest < 1.0
    assert sum(lag.seconds.counts) >= 3
    assert [m for m in caplog.messages if "event loop blocked" in m]


def test_the_lag_of_a_server_is_among_its_metrics(server: ServerHandle) -> None:
    def lag() -> dict[str, float]:
        lines = httpx.get(server.url + "/metrics", trust_env=False).text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("ripieno_event_loop_lag")]
        return {name: float(value) for name, value in pairs}

    assert soon(lambda: lag()["ripieno_event_loop_lag_seconds_count"] > 5)
    found = lag()
    assert f'ripieno_event_loop_lag_seconds_bucket{{le="{HELD}"}}' in found
    assert found["ripieno_event_loop_lag_max_seconds"] >= 0.0


def test_a_failing_callback_does_not_stop_the_callbacks_after_it() -> None:
    ran: list[int] = []
    loop = asyncio.new_event_loop()
    callbacks = CallbackBatcher(loop)
    for callback in (lambda: ran.append(1), lambda: 1 // 0, lambda: ran.append(2)):
        callbacks.put(callback)  # type: ignore[arg-type]
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert ran == [1, 2]
    callbacks.put(lambda: ran.append(3))  # the loop is closed: nothing runs, and nothing is raised
    assert ran == [1, 2]


def test_a_call_in_a_daemon_thread_returns_raises_and_outlives_its_caller() -> None:
    ended = threading.Event()

    def work(fails: bool) -> int:
        if fails:
            raise ValueError("no")
        time.sleep(0.1)
        ended.set()
        return 3

    async def run() -> None:
        assert await in_daemon_thread(work, False) == 3
        with pytest.raises(ValueError, match="no"):
            await in_daemon_thread(work, True)
        ended.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_daemon_thread(work, False), 0.01)

    asyncio.run(run())
    assert ended.wait(5)
