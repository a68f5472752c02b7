"""Prediction of job durations, and the search near its deadline, in virtual time."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import pytest
import synthetic

from ripieno.search import Settings, Simulation, simulate
from ripieno.search.duration_model import RECENT, DurationPredictor
from ripieno.search.job_queue import JobQueue
from ripieno.search.scheduler import TrialStep
from ripieno.types import Configuration

SETTINGS = Settings(synthetic.SPACE, "random", epochs=9)


def job(trial: int, start: int, stop: int) -> TrialStep:
    return TrialStep(trial, start, stop)


def learnt(*jobs: tuple[TrialStep, float]) -> DurationPredictor:
    """Return a predictor after jobs with these durations in seconds, at a cost of 1 per epoch."""
    pace = DurationPredictor()
    for step, seconds in jobs:
        pace.add(step, step.stop - step.start, seconds)
    return pace


def test_nothing_known_is_no_time_and_no_time_teaches_nothing() -> None:
    assert learnt().seconds(job(0, 0, 3), 3.0) == 0.0
    assert learnt((job(0, 0, 3), 0.0)).seconds(job(1, 0, 3), 3.0) == 0.0


def test_a_job_takes_what_jobs_about_as_long_took() -> None:
    """Jobs take five seconds each plus two per epoch."""
    pace = learnt(*((job(n, 0, stop), 5.0 + 2 * stop) for n, stop in enumerate([1, 27] * 6)))
    assert pace.seconds(job(100, 0, 1), 1.0) == pytest.approx(7.0)
    assert pace.seconds(job(100, 0, 27), 27.0) == pytest.approx(59.0)
    assert pace.seconds(job(100, 0, 18), 18.0) == pytest.approx(18 * 59 / 27)
    assert pace.seconds(job(11, 27, 28), 1.0) == pytest.approx(7.0)  # trial 11 took what is usual for as long


def test_a_trial_that_was_slow_is_slow_when_it_trains_on() -> None:
    pace = learnt(*((job(n, 0, 3), 30.0 if n == 7 else 3.0) for n in range(10)))
    assert pace.seconds(job(7, 3, 9), 6.0) == pytest.approx(60.0)
    assert pace.seconds(job(6, 3, 9), 6.0) == pytest.approx(6.0)


def test_workers_that_start_up_do_not_make_later_jobs_look_long() -> None:
    pace = learnt(*((job(n, 0, 3), 300.0 if n < 2 else 3.0) for n in range(8)))
    assert pace.seconds(job(8, 0, 3), 3.0) == pytest.approx(3.0)


def test_neighbours_that_came_are_noticed_and_those_that_left_forgotten() -> None:
    pace = learnt(*((job(n, 0, 3), 3.0 if n < RECENT else 6.0) for n in range(3 * RECENT)))
    assert pace.seconds(job(1000, 0, 3), 3.0) == pytest.approx(6.0)


def test_the_less_predictable_durations_are_the_more_time_is_kept_for_a_job() -> None:
    for spread in (0.0, 0.05, 0.2):
        took = (1 - 2 * spread, 1 - spread, 1.0, 1 + spread, 1 + 2 * spread)
        pace = learnt(*((job(n, 0, 3), 3.0 * took[n % 5]) for n in range(3 * RECENT)))
        assert pace.seconds(job(1000, 0, 3), 3.0) == pytest.approx(3.0 * (1 + spread))
        first = ((job(n, 0, 3), 3.0) for n in range(3 * RECENT))
        pace = learnt(*first, *((job(n, 3, 4), took[n % 5]) for n in range(3 * RECENT)), (job(1000, 0, 3), 3.0))
        assert pace.seconds(job(1000, 3, 4), 1.0) == pytest.approx(1 + spread)


def test_a_trial_that_trains_on_needs_no_margin_for_what_is_not_known_of_new_ones() -> None:
    new = {n: 3.0 * (0.5, 1.0, 2.0)[n % 3] for n in range(30)}
    on = ((job(n, 3, 9), 2 * seconds) for n, seconds in new.items())
    pace = learnt(*((job(n, 0, 3), seconds) for n, seconds in new.items()), *on)
    assert pace.seconds(job(25, 9, 15), 6.0) == pytest.approx(6.0, rel=0.1)
    assert pace.seconds(job(26, 9, 15), 6.0) == pytest.approx(12.0, rel=0.1)


def test_two_of_three_jobs_take_no_longer_than_predicted() -> None:
    chance, pace, kept = random.Random(1), DurationPredictor(), 0
    for n in range(600):
        seconds = 3.0 * chance.lognormvariate(0, 0.4)
        kept += seconds <= pace.seconds(job(n, 0, 3), 3.0)
        pace.add(job(n, 0, 3), 3.0, seconds)
    assert 0.6 < kept / 600 < 0.72


def test_a_job_starts_when_those_before_it_have_left_it_a_slot() -> None:
    queue, seconds = JobQueue(), {job(0, 0, 1): 10.0, job(1, 0, 1): 4.0, job(2, 0, 1): 3.0, job(3, 0, 1): 20.0}
    for number, step in enumerate(seconds):
        queue.add(step, 2, 100.0 + number)
    assert queue.running == {job(0, 0, 1): 100.0, job(1, 0, 1): 101.0}
    assert queue.free(seconds.__getitem__, 2, 103.0) == 110.0  # 1 ends at 105, 2 at 108; 0 ends, at 110; 3 at 128
    assert queue.free(seconds.__getitem__, 2, 120.0) == 123.0  # 0 and 1 are late
    queue.remove(job(1, 0, 1), 2, 104.0)
    assert queue.running == {job(0, 0, 1): 100.0, job(2, 0, 1): 104.0}
    queue.remove(job(3, 0, 1), 2, 104.0)
    assert queue.free(seconds.__getitem__, 2, 105.0) == 107.0
    assert queue.free(seconds.__getitem__, 3, 105.0) == 105.0  # a slot has joined


WIDTHS = [random.Random(n).uniform(0.0, 1.0) for n in range(1000)]


def seconds_of(trial: int, epochs: int) -> float:
    """Return a duration that depends on the trial's configuration, which the cost does not know."""
    return epochs * 16 ** WIDTHS[trial] + 0.5


def errors(pace: DurationPredictor) -> list[float]:
    """Return by what factor predictions for new trials are off, the median of some for each length."""
    found = []
    for epochs in (1, 9):
        pairs = [(pace.seconds(job(n, 0, epochs), epochs), seconds_of(n, epochs)) for n in range(500, 540)]
        found.append(median(max(a / b, b / a) for a, b in pairs))
    return found


def test_a_new_trial_takes_what_trials_of_similar_configurations_took() -> None:
    known, blind = DurationPredictor(lambda trial: np.array([WIDTHS[trial]])), DurationPredictor()
    for n in range(100):
        for pace in (known, blind):
            pace.add(job(n, 0, (1, 9)[n % 2]), (1.0, 9.0)[n % 2], seconds_of(n, (1, 9)[n % 2]))
            pace.learn()
    assert max(errors(known)) < 1.3
    assert min(errors(blind)) > 1.5


def test_configurations_are_learnt_only_from_a_dozen_trials_on() -> None:
    pace, plain = DurationPredictor(lambda trial: np.array([WIDTHS[trial]])), DurationPredictor()
    for n in range(11):
        pace.add(job(n, 0, 3), 3.0, seconds_of(n, 3))
        plain.add(job(n, 0, 3), 3.0, seconds_of(n, 3))
        pace.learn()
        assert pace.seconds(job(500, 0, 3), 3.0) == plain.seconds(job(500, 0, 3), 3.0)


def test_a_prediction_holds_as_long_as_the_job_runs() -> None:
    asked: list[int] = []

    def features(trial: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        asked.append(trial)
        return np.array([WIDTHS[trial]])

    pace = DurationPredictor(features)
    for n in range(60):
        pace.add(job(n, 0, 3), 3.0, seconds_of(n, 3))
        pace.learn()
    asked.clear()
    assert pace.seconds(job(500, 0, 3), 3.0) == pace.seconds(job(500, 0, 3), 3.0) > 0
    assert asked == [500]


# the search, near its deadline


def even(configuration: Configuration, epoch: int) -> tuple[float, float]:
    """Return a loss at two seconds per epoch."""
    return synthetic.loss_of(configuration, epoch), 2.0 * epoch


def cut(run: Simulation) -> list[str]:
    return [o.job.member for o in run.outcomes if o.member is not None and o.member.epoch < o.job.stop]


def test_no_job_is_started_that_cannot_finish() -> None:
    run = simulate(SETTINGS, even, 1, seconds=50)  # two jobs of 18 s, and most of a third
    assert [(o.job.member, o.finished) for o in run.outcomes] == [("00000-e009", 18.0), ("00001-e009", 36.0)]
    assert run.summary.ended == "deadline"


def test_a_job_that_just_finishes_is_started() -> None:
    run = simulate(SETTINGS, even, 1, seconds=54)
    assert [o.finished for o in run.outcomes] == [18.0, 36.0, 54.0]
    assert cut(run) == []


def test_shorter_jobs_fill_the_time_left() -> None:
    run = simulate(replace(SETTINGS, algorithm="hyperband"), even, 2, seconds=101)
    assert run.seconds == 100.0
    assert cut(run) == []
    assert sum(o.finished - o.started for o in run.outcomes) == 200.0


def test_jobs_that_would_wait_too_long_for_a_slot_are_not_issued() -> None:
    settings = replace(SETTINGS, order="virtual", window=6)
    run = simulate(settings, even, 2, seconds=120)  # 6 jobs a slot, and a third of one
    assert cut(run) == []
    assert [o.finished for o in run.outcomes] == [18.0 * (1 + n // 2) for n in range(12)]


def test_a_job_that_cannot_finish_ends_before_the_deadline_and_is_a_member() -> None:
    run = simulate(SETTINGS, even, 1, seconds=7)  # nothing is known when it starts
    (outcome,) = run.outcomes
    assert outcome.member is not None
    assert (outcome.member.id, outcome.finished) == ("00000-e003", 6.0)


def test_in_an_uneven_world_the_time_is_used_and_few_jobs_are_cut_short() -> None:
    """Costs are wrong by a half on average, epochs by a tenth, and the first jobs start workers."""
    cuts, used, seconds = 0, 0.0, 2000.0
    for seed in range(8):
        met: dict[str, int] = {}

        def curve(configuration: Configuration, epoch: int, met: dict[str, int] = met) -> tuple[float, float]:
            name = str(sorted(configuration.items()))
            chance = random.Random(name)
            guess = chance.lognormvariate(0, 0.5)
            epochs = sum(chance.lognormvariate(0, 0.1) for _ in range(epoch))
            late = 15.0 * (met.setdefault(name, len(met)) < 6)
            return synthetic.loss_of(configuration, epoch), late + synthetic.weight(configuration) * guess * epochs

        settings = Settings(synthetic.SPACE, epochs=27, seed=seed)
        run = simulate(settings, curve, 6, seconds=seconds, overhead=5.0, weight=synthetic.weight)
        cuts += len(cut(run))
        used += sum(min(o.finished, seconds) - o.started for o in run.outcomes) / (6 * seconds)
    assert used / 8 > 0.98
    assert cuts / (8 * 6) < 0.17  # of what ran at the end; 0.13 over 64 seeds
