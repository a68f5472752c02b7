"""The clock of a search: real seconds, even when the system clock is changed."""

from __future__ import annotations

import time

import pytest

from ripieno import clock


def test_it_tells_unix_seconds() -> None:
    assert clock.now() == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize("jump", [3600, -3600])
def test_setting_the_systems_clock_does_not_move_it(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    before, real = clock.now(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert 0 <= clock.now() - before < 5


def test_a_worker_counts_from_its_drivers_origin() -> None:
    own = clock.origin()
    try:
        clock.follow(own + 1000)
        assert clock.now() == pytest.approx(own + 1000 + time.monotonic(), abs=1)
    finally:
        clock.follow(own)
