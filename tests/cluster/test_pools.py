"""Contract of every pool, as the search relies on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pool_jobs
import pytest
from pool_jobs import job, notes

from ripieno import clock
from ripieno.cluster import InlinePool, LocalPool, Pool, RayPool
from ripieno.types import JobResult

POOLS: dict[str, Callable[[partial[JobResult]], Pool]] = {
    "inline": InlinePool,
    "local-1": partial(LocalPool, slots=1),
    "local-2": partial(LocalPool, slots=2),
    "ray": RayPool,
}


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pool]:
    if request.param == "ray":
        request.getfixturevalue("cluster")
    with POOLS[request.param](partial(pool_jobs.work, str(tmp_path))) as pool:
        yield pool


def all_of(pool: Pool) -> dict[int, JobResult]:
    outcomes: dict[int, JobResult] = {}
    while finished := pool.wait(30):
        assert not outcomes.keys() & {o.job.trial for o in finished}
        outcomes |= {o.job.trial: o for o in finished}
    return outcomes


def test_each_job_comes_back_once_with_its_member(pool: Pool) -> None:
    jobs = [job(n) for n in range(7)]
    for one in jobs:
        pool.submit(one)
    outcomes = all_of(pool)
    assert [outcomes[n].job for n in range(7)] == jobs
    assert all(o.member is not None and o.member.id == o.job.member and o.failure is None for o in outcomes.values())


def test_an_outcome_says_where_and_when_it_ran(pool: Pool) -> None:
    before = clock.now()
    pool.submit(job(0, "sleep", seconds=0.05))
    (outcome,) = pool.wait(30)
    assert before <= outcome.started <= outcome.finished - 0.05 <= clock.now()
    assert 0 <= outcome.slot < pool.slots


def test_jobs_start_in_the_order_submitted(pool: Pool, tmp_path: Path) -> None:
    for n in range(pool.slots):  # wait until all slots have started
        pool.submit(job(n, "sleep", seconds=0.3))
    all_of(pool)
    for n in range(pool.slots, 10):
        pool.submit(job(n, "sleep", seconds=0.03))
    all_of(pool)
    started = [int(line.partition(":")[0]) for line in notes(tmp_path)]
    assert all(abs(place - n) <= pool.slots for place, n in enumerate(started))


def test_what_a_job_raises_is_its_failure_with_the_traceback(pool: Pool) -> None:
    for n, do in enumerate(["raise", "memory", "diverge", "exit", "work"]):
        pool.submit(job(n, do))
    failures = {n: o.failure for n, o in all_of(pool).items()}
    assert failures[4] is None
    assert failures[0] is not None
    assert failures[0].reason == "error"
    assert failures[0].message == "ValueError: no such layer"
    assert "pool_jobs.py" in failures[0].detail
    assert [failures[n].reason for n in (1, 2, 3)] == ["memory", "diverged", "error"]  # type: ignore[union-attr]


def test_a_job_out_of_memory_is_tried_again_twice_and_then_a_failure(pool: Pool, tmp_path: Path) -> None:
    for n, do in enumerate(["memory once", "memory"]):
        pool.submit(job(n, do))
    outcomes = all_of(pool)
    assert outcomes[0].member is not None
    failure = outcomes[1].failure
    assert failure is not None
    assert failure.reason == "memory"
    assert "pool_jobs.py" in failure.detail
    tried = [int(line.partition(":")[0]) for line in notes(tmp_path)]
    assert (tried.count(0), tried.count(1)) == (2, 3)


def test_waiting_for_nothing_returns_at_once(pool: Pool) -> None:
    assert pool.wait(None) == []


def test_a_closed_pool_has_forgotten_its_queue_and_closes_twice(pool: Pool, tmp_path: Path) -> None:
    for n in range(6):
        pool.submit(job(n, "sleep", seconds=0.05))
    pool.close()
    ran = len(notes(tmp_path))
    assert ran <= pool.slots
    pool.close(cancel=True)
    assert pool.wait(0.01) == []
    assert len(notes(tmp_path)) == ran
