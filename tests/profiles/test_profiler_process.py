from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ripieno.profiles.timing import RunQueueDelay, time_calls


class Clock:
    """Clock that advances only when `work` is called, by the next of `durations`; the last one repeats."""

    def __init__(self, durations: Sequence[float]) -> None:
        self.now = 0.0
        self.durations = list(durations)
        self.calls = 0

    def __call__(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += self.durations[min(self.calls, len(self.durations) - 1)]
        self.calls += 1


def timed(durations: Sequence[float], window: float = 0.3, seconds: float = 100.0) -> tuple[float, float, Clock]:
    clock = Clock(durations)
    median, spread = time_calls(clock.work, window, 0.05, seconds, clock)
    return median, spread, clock


def test_a_steady_call_takes_one_window_after_its_warm_up() -> None:
    median, spread, clock = timed([0.01])
    assert (median, spread) == (pytest.approx(0.01), pytest.approx(0.0, abs=1e-9))
    assert clock.now == pytest.approx(0.4, abs=0.05)


def test_a_slow_first_call_is_not_counted() -> None:
    assert timed([5.0, 0.01])[0] == pytest.approx(0.01)


def test_a_disturbed_interval_is_measured_again() -> None:
    calm, loud = [0.01] * 10, [0.03] * 4
    median, spread, clock = timed([*calm, *calm, *loud, *loud, *calm])
    assert median == pytest.approx(0.01)
    assert spread <= 0.05
    assert clock.now > 0.55


def test_a_call_longer_than_the_window_is_made_four_times() -> None:
    median, _, clock = timed([2.0])
    assert (median, clock.calls) == (2.0, 4)


def test_time_is_bounded_and_the_spread_then_says_so() -> None:
    durations = [0.01 * 1.5**i for i in range(30)]
    _, spread, clock = timed(durations, seconds=1.0)
    assert spread > 0.05
    assert clock.now < 3.0


def test_one_interval_is_compared_with_the_warm_up() -> None:
    median, spread, clock = timed([3.0, 2.0], seconds=4.0)
    assert (median, spread, clock.calls) == (2.0, 0.5, 2)


def test_time_lost_to_others_is_not_the_calls() -> None:
    clock = Clock([0.03])  # 0.02 s of each call are lost
    median, spread = time_calls(clock.work, 0.3, 0.05, 100.0, clock, waited=lambda: 0.02)
    assert (median, spread) == (pytest.approx(0.01), pytest.approx(0.0, abs=1e-9))


def test_waits_are_of_the_thread_that_waited_longest_since_the_last_call(tmp_path: Path) -> None:
    waited = {"1": 5, "2": 7}
    for task, nanoseconds in waited.items():
        (tmp_path / task).mkdir()
        (tmp_path / task / "schedstat").write_text(f"100 {nanoseconds} 3\n")
    waits = RunQueueDelay(tmp_path)
    assert waits() == 0
    (tmp_path / "1" / "schedstat").write_text("200 3000000005 9\n")
    (tmp_path / "2" / "schedstat").write_text("200 1000000007 9\n")
    assert waits() == pytest.approx(3.0)
    assert waits() == 0


def test_threads_that_compute_little_may_wait_for_as_long_as_they_like(tmp_path: Path) -> None:
    for task in "12":
        (tmp_path / task).mkdir()
        (tmp_path / task / "schedstat").write_text("0 0 0\n")
    waits = RunQueueDelay(tmp_path)
    (tmp_path / "1" / "schedstat").write_text("9000000000 1000000000 9\n")
    (tmp_path / "2" / "schedstat").write_text("1000000 8000000000 9\n")
    assert waits() == pytest.approx(1.0)


@pytest.mark.alone
def test_a_core_shared_with_a_neighbour_is_noticed() -> None:
    core = min(os.sched_getaffinity(0))
    spin = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"]
    before = os.sched_getaffinity(0)
    with subprocess.Popen(spin) as neighbour:
        try:
            os.sched_setaffinity(0, [core])
            waits, began, used = RunQueueDelay(), time.perf_counter(), time.thread_time()
            while time.perf_counter() < began + 0.5:
                pass
            took, used = time.perf_counter() - began, time.thread_time() - used
            assert waits() == pytest.approx(took - used, abs=0.1)
            assert took - used > 0.05
        finally:
            os.sched_setaffinity(0, before)
            neighbour.kill()
