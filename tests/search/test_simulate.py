"""Searches in virtual time, against results computed by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from synthetic import loss_of

from ripieno.cluster import SimulatedPool
from ripieno.errors import SearchError
from ripieno.search import Settings, simulate
from ripieno.types import Configuration, Job

SETTINGS = Settings(synthetic.SPACE, trials=200, epochs=9)


def curve(configuration: Configuration, epoch: int) -> tuple[float, float]:
    return loss_of(configuration, epoch), epoch * synthetic.weight(configuration)


def even(configuration: Configuration, epoch: int) -> tuple[float, float]:
    """Return a loss at two seconds per epoch."""
    return 1 / epoch, 2.0 * epoch


def job(trial: int, start: int, stop: int) -> Job:
    return Job(trial, {"rate": 0.1}, start, stop)


def test_jobs_take_the_seconds_of_their_epochs_and_wait_for_a_slot() -> None:
    pool = SimulatedPool(even, 2, overhead=0.5)
    for one in (job(0, 0, 3), job(1, 1, 2), job(2, 0, 1)):
        pool.submit(one)
    ended = []
    while outcomes := pool.wait():
        ended += [(o.job.trial, o.slot, o.started, o.finished, pool.clock()) for o in outcomes]
    assert ended == [(1, 1, 0.0, 2.5, 2.5), (2, 1, 2.5, 5.0, 5.0), (0, 0, 0.0, 6.5, 6.5)]


def test_jobs_that_end_at_the_same_moment_come_together() -> None:
    pool = SimulatedPool(even, 3)
    for trial in range(3):
        pool.submit(job(trial, 0, 1 + trial // 2))
    assert [[o.job.trial for o in pool.wait()] for _ in range(3)] == [[0, 1], [2], []]


def test_a_job_starts_no_epoch_that_would_end_after_the_deadline_but_its_first() -> None:
    pool = SimulatedPool(even, 1, deadline=6.5)
    for one in (job(0, 0, 2), job(1, 3, 9), job(2, 4, 9), job(3, 0, 9)):
        pool.submit(one)
    members = [pool.wait()[0].member for _ in range(4)]
    assert [m.id for m in members if m is not None] == ["00000-e002", "00001-e004", "00002-e004", "00003-e001"]
    assert pool.clock() == 8.0  # the first epoch of the last one ran from 6 to 8


def test_decisions_take_their_time_while_jobs_run_and_curves_take_none() -> None:
    computed = 0.0

    def costly(configuration: Configuration, epoch: int) -> tuple[float, float]:
        nonlocal computed
        computed += 100.0
        return even(configuration, epoch)

    pool = SimulatedPool(costly, 1, decision_clock=lambda: computed)
    computed += 3.0
    pool.submit(job(0, 0, 1))
    computed += 1.0
    (outcome,) = pool.wait()
    assert (outcome.started, outcome.finished, pool.clock()) == (3.0, 5.0, 5.0)
    pool.submit(job(1, 0, 1))
    computed += 6.0  # the job ends meanwhile, and its slot waits for a decision
    (outcome,) = pool.wait()
    assert (outcome.started, outcome.finished, pool.clock()) == (5.0, 7.0, 11.0)
    pool.submit(job(2, 0, 1))
    assert pool.wait()[0].started == 11.0


def test_what_a_curve_raises_is_the_jobs_failure() -> None:
    pool = SimulatedPool(lambda configuration, epoch: (1 / 0, 1.0))
    pool.submit(job(0, 0, 1))
    (outcome,) = pool.wait()
    assert outcome.failure is not None
    assert outcome.failure.message.startswith("ZeroDivisionError")
    with pytest.raises(SearchError, match="at least 1"):
        SimulatedPool(even, 0)


def test_a_simulation_gives_the_same_again() -> None:
    first, again = (simulate(SETTINGS, curve, 7) for _ in range(2))
    assert first.outcomes == again.outcomes
    assert len(first.outcomes) == first.summary.jobs
    other = simulate(replace(SETTINGS, seed=1), curve, 7)
    assert first.outcomes != other.outcomes


def test_the_time_given_is_used_up_and_hardly_exceeded() -> None:
    run = simulate(replace(SETTINGS, trials=None), curve, 4, seconds=600, weight=synthetic.weight)
    assert run.summary.ended == "deadline"
    assert 560 < run.seconds < 600 + 17
    assert run.summary.occupancy > 0.95


def test_a_slot_whose_job_was_cut_short_takes_others_that_fit() -> None:
    def uneven(configuration: Configuration, epoch: int) -> tuple[float, float]:
        return 1 / epoch, epoch * (100.0 if int(configuration["width"]) > 13 else 1.0)  # slower than the search expects

    run = simulate(replace(SETTINGS, algorithm="random", epochs=4, trials=None), uneven, 1, seconds=1000)
    cut = next(o for o in run.outcomes if o.member is not None and o.member.epoch < o.job.stop)
    assert cut.finished < 980
    assert any(o.started >= cut.finished for o in run.outcomes)
    assert run.seconds > 990


def test_twenty_workers_are_nearly_twenty_times_as_fast() -> None:
    one, many = (simulate(SETTINGS, curve, slots) for slots in (1, 20))
    assert one.seconds == pytest.approx(sum(o.finished - o.started for o in one.outcomes))  # never idle
    work = sum(o.finished - o.started for o in many.outcomes)
    assert work / many.seconds > 0.85 * 20  # the last trials leave slots idle


def test_hyperband_fills_the_library_faster_than_random_search() -> None:
    settings = replace(SETTINGS, trials=None)
    random, hyperband = (
        simulate(replace(settings, algorithm=a), curve, 6, seconds=2000) for a in ("random", "hyperband")
    )
    assert hyperband.summary.members > 2 * random.summary.members


def test_lcbench_curves_are_losses_and_growing_times(shared_data: Path) -> None:
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "search"))
    from lcbench import EPOCHS, LCBench  # type: ignore[import-not-found]

    bench = LCBench(shared_data / "lcbench")
    assert len(bench.tasks) == 34
    run = simulate(Settings(bench.space, epochs=EPOCHS, trials=20), bench.curve(bench.tasks[3]), 6)
    assert run.summary.trials == 20
    assert run.summary.failures == 0
    assert all(o.finished > o.started for o in run.outcomes)
    assert run.summary.best_loss is not None
    assert 0 < run.summary.best_loss < 1
