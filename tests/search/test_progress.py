"""Progress of a search while it runs."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from ripieno.search.objectives import find_objectives
from ripieno.search.progress import (
    RunningJob,
    SearchStats,
    Snapshot,
    describe_top,
    dominated_volume,
    seconds_left,
)
from ripieno.types import Job


def test_the_ten_best_are_trials_each_at_its_best_rung() -> None:
    generator = random.Random(0)
    tally, rungs = SearchStats(), [(trial, stop) for trial in range(30) for stop in (1, 3, 9)]
    lowest: dict[int, float] = {}
    for trial, stop in generator.sample(rungs, len(rungs)):
        loss = generator.choice([0.1, 0.2, generator.random()])
        tally.add(Job(trial, {}, 0, stop), loss)
        lowest[trial] = min(loss, lowest.get(trial, 9.0))
        ten = sorted(lowest.values())[:10]
        assert tally.top == sum(ten) / len(ten)
        assert tally.top_trials == len(ten)
    assert tally.members == 90


def test_rungs_of_one_trial_are_one_network_of_the_ten_best() -> None:
    tally = SearchStats()
    assert tally.top is None
    for stop, loss in ((1, 0.9), (3, 0.5), (9, 0.1), (27, 0.3)):
        tally.add(Job(0, {}, 0, stop), loss)
    assert tally.top == 0.1
    tally.add(Job(1, {}, 0, 1), 0.7)
    tally.add(Job(2, {}, 0, 1), None)
    assert tally.top == pytest.approx(0.4)
    assert describe_top(tally.top_trials) == "the 2 best trials"


def test_the_number_of_trials_in_a_mean_is_named() -> None:
    named = [describe_top(count) for count in (1, 9, 10)]
    assert named == ["the best trial", "the 9 best trials", "the ten best trials"]


def waiting(**changed: Any) -> Snapshot:
    """Return a snapshot of two jobs of three epochs that began 12 seconds ago, none before them."""
    running = tuple(RunningJob(Job(trial, {}, 0, 3), 100.0, None) for trial in range(2))
    counts: dict[str, Any] = {"queued": 0, "slots": 2, "trials": 2, "most_trials": 10, "jobs": 0, "members": 0}
    losses: dict[str, Any] = {"failures": 0, "best": None, "best_loss": None, "top_loss": None}
    made = Snapshot(running, **counts, **losses, now=112.0, seconds=14.0, left=None, occupancy=1.0, expected_epochs=30)
    return replace(made, **changed)


def test_the_first_batches_of_a_search_tell_its_end() -> None:
    assert seconds_left(waiting(), {}) is None
    assert seconds_left(waiting(), {0: 0.0, 1: 0.0}) is None
    # six seconds a tenth of an epoch each: 24 seconds for 0.4 epochs of two trials, 29.6 left on two slots
    assert seconds_left(waiting(), {0: 0.2, 1: 0.2}) == pytest.approx(60 * 29.6 / 2)
    assert seconds_left(waiting(), {0: 0.2}) == pytest.approx(60 * 29.8 / 2)  # the other one has said nothing yet


def test_ended_jobs_count_for_the_time_of_an_epoch() -> None:
    ended = waiting(epochs=20, timed_epochs=10, timed_seconds=20.0, running=())
    assert seconds_left(ended, {}) == pytest.approx(2.0 * 10 / 2)
    assert seconds_left(replace(ended, epochs=30), {}) == 0.0


def test_the_longest_job_and_the_deadline_bound_the_end() -> None:
    last = waiting(epochs=30, timed_epochs=30, timed_seconds=60.0)
    left = seconds_left(last, {0: 2.0, 1: 1.0})
    assert left == pytest.approx(2 * (60 + 24) / 33)
    begun = replace(last, timed_seconds=60.0)  # all epochs expected are done, and two jobs have just begun
    longest = max(entry.job.stop - entry.job.start for entry in begun.running)
    assert seconds_left(begun, {}) == pytest.approx(2.0 * longest)
    assert seconds_left(replace(last, left=1.5), {0: 2.0, 1: 1.0}) == 1.5
    assert seconds_left(waiting(left=50.0, expected_epochs=None), {0: 1.0}) == 50.0


def test_the_hypervolume_of_trials_is_in_boxes_of_the_first_ten() -> None:
    stats = SearchStats(find_objectives(("loss", "flops")))

    def add(trial: int, loss: float, flops: float) -> float | None:
        stats.add(Job(trial, {}, 0, 1), loss, {"flops": flops})
        return stats.trial_volume

    # on a line from (0.1, 1000) to (1, 100): a staircase of nine steps below it
    volumes = [add(n, 0.1 * (n + 1), 100.0 * (10 - n)) for n in range(10)]
    assert volumes[:9] == [None] * 9
    assert volumes[9] == pytest.approx(36 / 81)
    assert add(10, 2.0, 2000.0) == volumes[9]
    assert add(11, 0.1, 100.0) == pytest.approx(1.0)
    assert add(12, 0.1, 10.0) == pytest.approx(1.1)
    assert SearchStats().trial_volume is None


def test_a_volume_of_three_numbers_is_that_of_its_boxes() -> None:
    assert dominated_volume([(0, 0, 0)], (2, 3, 4)) == 24
    assert dominated_volume([(1, 1, 1), (0, 2, 2), (5, 0, 0)], (2, 3, 4)) == 1 * 2 * 3 + 2 * 1 * 2 - 1 * 1 * 2
    assert dominated_volume([], (1, 1)) == 0
