"""Replay of jobs on shared processors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS / name) for name in ("search", "engine", "tasks")]
try:
    from synergy import GPUS, Share, WaitingJob, equal_shares, shares_by_sensitivity, simulate
finally:
    del sys.path[:3]

SHARES = [(cpus, memory) for cpus in range(1, 10) for memory in range(3)]


def network(fastest: int) -> dict[Share, float]:
    """Speeds of a network that gains from processors up to `fastest`, and is starved without memory."""
    return {(c, m): 0.1 if m == 0 else min(c, fastest) / min(3, fastest) for c, m in SHARES}


HUNGRY, FRUGAL = network(9), network(1)


def test_what_one_job_does_not_need_speeds_up_another() -> None:
    jobs = [WaitingJob(speeds, 0.0, 1.0) for speeds in (HUNGRY, HUNGRY, *[FRUGAL] * 6)]
    shares = shares_by_sensitivity(jobs)
    assert shares[2:] == [(1, 1)] * 6
    assert shares[:2] == [(9, 1)] * 2
    assert sum(cpus for cpus, _ in shares) == GPUS * 3


def test_jobs_of_one_kind_on_a_full_server_gain_nothing() -> None:
    for speeds in (HUNGRY, FRUGAL):
        times = [
            simulate([WaitingJob(speeds, 0.0, 2.0) for _ in range(2 * GPUS)], divide)
            for divide in (equal_shares, shares_by_sensitivity)
        ]
        assert times == pytest.approx([3.0, 3.0])


def test_a_job_waits_for_a_gpu_and_never_has_less_than_its_equal_share() -> None:
    jobs = [WaitingJob(HUNGRY, 0.0, 1.0) for _ in range(GPUS)] + [WaitingJob(HUNGRY, 0.5, 1.0)]
    # the last one starts at 1 and, alone, has three times the equal share by sensitivity
    assert simulate([WaitingJob(j.speeds, j.arrival, j.left) for j in jobs], equal_shares) == pytest.approx(9.5 / 9)
    assert simulate(jobs, shares_by_sensitivity) == pytest.approx((8 + 0.5 + 1 / 3) / 9)
