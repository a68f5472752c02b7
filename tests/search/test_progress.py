"""Progress of a search while it runs."""

from __future__ import annotations

import random

import pytest

from ripieno.search.progress import SearchStats, describe_top
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
