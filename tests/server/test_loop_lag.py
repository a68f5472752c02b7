from __future__ import annotations

import asyncio
import logging
import time

import httpx
import pytest

from ripieno.server.loop_lag import HELD, LoopLag
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
