"""Limits on how often a job may kill its worker."""

from __future__ import annotations

import pool_jobs

from ripieno.cluster.retries import STARTS, RetryPolicy, no_progress
from ripieno.types import Job

JOB = pool_jobs.job(0)


def test_the_third_death_without_progress_is_the_last() -> None:
    deaths = RetryPolicy(JOB, no_progress)
    assert [deaths.should_retry() for _ in range(3)] == [True, True, False]
    assert len(deaths) == 3


def test_a_job_that_gets_on_between_deaths_is_never_at_fault() -> None:
    epochs = iter(range(100))
    deaths = RetryPolicy(JOB, lambda job: next(epochs))
    assert all(deaths.should_retry() for _ in range(20))
    assert len(deaths) == 1


def test_deaths_count_from_the_last_progress_on() -> None:
    epochs = iter([0, 0, 0, 1, 1, 1])  # on construction, then at each death
    deaths = RetryPolicy(JOB, lambda job: next(epochs))
    assert [deaths.should_retry() for _ in range(5)] == [True, True, True, True, False]


def test_progress_is_that_of_the_job() -> None:
    asked: list[Job] = []
    RetryPolicy(JOB, asked.append).should_retry()
    assert asked == [JOB, JOB]


def test_what_happened_on_a_machine_that_is_gone_does_not_count() -> None:
    deaths = RetryPolicy(JOB, no_progress)
    assert deaths.should_retry("b", {"a", "b"})  # a worker dies first,
    assert deaths.should_retry("b", {"a", "b"})
    assert deaths.should_retry("a", {"a"})  # and its machine after it
    assert deaths.should_retry("b", {"a"})
    assert deaths.should_retry("a", {"a"})
    assert not deaths.should_retry("a", {"a"})


def test_five_workers_in_a_row_may_die_before_they_come_as_far_as_the_job() -> None:
    deaths = RetryPolicy(JOB, no_progress)
    assert [deaths.starting() for _ in range(STARTS + 1)] == [True] * STARTS + [False]
    assert len(deaths) == STARTS + 1


def test_a_worker_that_came_as_far_as_the_job_ends_the_row_of_those_that_did_not() -> None:
    deaths = RetryPolicy(JOB, no_progress)
    assert all(deaths.starting() for _ in range(STARTS))
    assert deaths.should_retry()
    assert len(deaths) == 1
    assert all(deaths.starting() for _ in range(STARTS))
