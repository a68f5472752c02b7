"""Successive halving against tables worked by hand, and against what must hold for any results."""

from __future__ import annotations

from itertools import pairwise
from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.errors import SearchError
from ripieno.search.algorithms import ALGORITHMS, SCHEDULERS, find_algorithm
from ripieno.search.asha import Asha, hyperband, rungs, shares
from ripieno.search.scheduler import Decision


def start(asha: Asha, losses: list[float | None]) -> list[Decision]:
    """Start a trial per loss and tell it."""
    decisions = []
    for loss in losses:
        decision = next(d for d in asha.options() if d.start == 0)
        asha.issue(decision)
        asha.tell(decision, loss)
        decisions.append(decision)
    return decisions


@pytest.mark.parametrize(
    ("epochs", "eta", "least", "ladder"),
    [
        (27, 3, 1, (1, 3, 9, 27)),
        (243, 3, 3, (3, 9, 27, 81, 243)),
        (1000, 10, 1, (1, 10, 100, 1000)),
        (20, 3, 1, (1, 3, 9, 20)),
        (10, 3, 1, (1, 3, 10)),
        (30, 3, 1, (1, 3, 9, 30)),
        (2, 3, 1, (1, 2)),
        (1, 3, 1, (1,)),
    ],
)
def test_rungs_are_integers_and_end_exactly_at_the_most_epochs(
    epochs: int, eta: int, least: int, ladder: tuple[int, ...]
) -> None:
    assert rungs(epochs, eta, least) == ladder


@given(st.integers(1, 5000), st.integers(2, 6), st.integers(1, 50))
def test_the_last_rung_is_the_most_epochs_and_no_short_step(more: int, eta: int, least: int) -> None:
    epochs = least + more - 1
    ladder = rungs(epochs, eta, least)
    assert ladder[-1] == epochs
    assert list(ladder) == sorted(set(ladder))
    assert all(low * eta == high for low, high in pairwise(ladder[:-1]))
    assert len(ladder) < 3 or ladder[-1] ** 2 >= ladder[-2] ** 2 * eta


def test_hyperbands_brackets_and_proportions_are_those_of_the_book() -> None:
    assert hyperband(27) == ((1, 3, 9, 27), (3, 9, 27), (9, 27), (27,))
    assert shares(4, 3) == (27, 12, 6, 4)
    assert shares(5, 3) == (81, 34, 15, 8, 5)  # table 1 of Li et al. 2017, R = 81


def test_new_trials_are_dealt_between_brackets_in_their_proportions() -> None:
    asha = Asha(hyperband(27), trials=98)
    stops = [d.stop for d in start(asha, [None] * 98)]
    assert [stops[:49].count(stop) for stop in (1, 3, 9, 27)] == [27, 12, 6, 4]
    assert [stops.count(stop) for stop in (1, 3, 9, 27)] == [54, 24, 12, 8]
    assert set(stops[:7]) == {1, 3, 9, 27}


def test_when_there_is_no_time_for_the_bracket_whose_turn_it_is_another_may_start_the_trial() -> None:
    asha = Asha(hyperband(9), trials=40)
    start(asha, [None] * 3)
    turn, *others = [d for d in asha.options() if d.start == 0]
    assert {d.stop for d in (turn, *others)} == {1, 3, 9}
    assert {d.trial for d in (turn, *others)} == {3}
    short = min(others, key=lambda d: d.stop)
    asha.issue(short)
    asha.tell(short, 0.5)
    assert next(d for d in asha.options() if d.start == 0).stop == turn.stop  # it is still its turn


def test_of_brackets_equally_behind_that_with_more_rungs_goes_first() -> None:
    assert shares(3, 2) == (4, 3, 3)
    assert [d.stop for d in start(Asha(hyperband(4, 2), 2), [None] * 3)] == [1, 2, 4]


def test_a_trial_is_promoted_when_it_is_in_the_top_third_of_its_rung() -> None:
    asha = Asha((rungs(9),), trials=6)
    start(asha, [0.5, 0.4])
    assert asha.ask() == Decision(2, 0, 1)  # a third of two results is none
    start(asha, [0.6])
    assert asha.ask() == Decision(1, 1, 3)  # the best of three
    asha.issue(Decision(1, 1, 3))
    assert asha.ask() == Decision(3, 0, 1)  # promoted once only
    start(asha, [0.7])
    assert asha.ask() == Decision(4, 0, 1)
    start(asha, [0.3])
    assert asha.ask() == Decision(4, 1, 3)  # the best of five
    asha.issue(Decision(4, 1, 3))
    start(asha, [0.8])
    assert asha.ask() is None  # both of the top two of six are promoted, and all trials are started


def test_the_highest_rung_goes_first_and_the_best_of_it() -> None:
    asha = Asha((rungs(9),), trials=20)
    start(asha, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2])
    for trial, loss in ((0, 0.30), (1, 0.20), (2, 0.25)):
        assert asha.ask() == Decision(trial, 1, 3)
        asha.issue(Decision(trial, 1, 3))
        asha.tell(Decision(trial, 1, 3), loss)
    assert list(asha.options()) == [Decision(1, 3, 9), Decision(3, 1, 3), Decision(12, 0, 1)]


def test_equal_losses_are_ranked_by_trial() -> None:
    asha = Asha((rungs(3),), trials=3)
    start(asha, [0.5, 0.5, 0.5])
    assert asha.ask() == Decision(0, 1, 3)


@pytest.mark.parametrize("failed", [None, nan, float("inf")])
def test_a_failed_trial_is_worse_than_all_others_and_never_promoted(failed: float | None) -> None:
    asha = Asha((rungs(9),), trials=9)
    start(asha, [failed, failed, failed])
    assert asha.ask() == Decision(3, 0, 1)
    start(asha, [9.0, failed, failed])
    assert [d for d in asha.options() if d.start] == [Decision(3, 1, 3)]


def test_late_results_still_promote_when_all_trials_were_started() -> None:
    asha = Asha((rungs(3),), trials=3)
    for trial in range(3):
        asha.issue(Decision(trial, 0, 1))
    asha.tell(Decision(0, 0, 1), 0.5)
    asha.tell(Decision(1, 0, 1), 0.4)
    assert asha.ask() is None
    asha.tell(Decision(2, 0, 1), 0.3)
    assert asha.ask() == Decision(2, 1, 3)


def test_random_search_trains_every_trial_to_the_end() -> None:
    scheduler = SCHEDULERS["full"](27, 3, 2)
    for trial in range(2):
        (decision,) = scheduler.options()
        assert decision == Decision(trial, 0, 27)
        scheduler.issue(decision)
        scheduler.tell(decision, 0.1)
    assert list(scheduler.options()) == []


def test_every_algorithm_names_a_scheduler_and_unknown_ones_are_refused() -> None:
    assert all(a.scheduler in SCHEDULERS for a in ALGORITHMS.values())
    with pytest.raises(SearchError, match="there are: hyperband, asha, random, bohb"):
        find_algorithm("grid")


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(SearchError, match="at least 2"):
        rungs(9, 1)
    with pytest.raises(SearchError, match="0 trials"):
        Asha(((1,),), trials=0)


class Watched:
    """A scheduler under watch: every decision is checked against a rung table kept beside it."""

    def __init__(self, brackets: tuple[tuple[int, ...], ...], eta: int, trials: int) -> None:
        self.asha = Asha(brackets, eta, trials)
        self.eta = eta
        self.jobs: list[Decision] = []
        self.results: dict[Decision, float | None] = {}

    def issue(self) -> Decision | None:
        decision = self.asha.ask()
        if decision is not None:
            assert decision not in self.jobs
            if decision.start:
                self.check_rank(decision)
            self.asha.issue(decision)
            self.jobs.append(decision)
        return decision

    def check_rank(self, decision: Decision) -> None:
        """Fewer than a share of 1/eta of the trials that paused in the same rung of the same bracket are better."""
        first = {d.trial: d.stop for d in self.jobs if d.start == 0}
        rung = {
            d.trial: loss
            for d, loss in self.results.items()
            if d.stop == decision.start and first[d.trial] == first[decision.trial]
        }
        mine = rung[decision.trial]
        assert mine is not None
        better = sum(loss is not None and loss < mine for loss in rung.values())
        assert better + 1 <= len(rung) / self.eta

    def tell(self, decision: Decision, loss: float | None) -> None:
        self.results[decision] = loss
        self.asha.tell(decision, loss)


LOSSES = st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.25, 0.5]))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(2, 4), st.integers(1, 30), st.integers(1, 6), st.booleans())
def test_no_job_twice_no_promotion_below_the_top_share_and_nobody_idle(
    data: st.DataObject, epochs: int, eta: int, trials: int, workers: int, brackets: bool
) -> None:
    watched = Watched(hyperband(epochs, eta) if brackets else (rungs(epochs, eta),), eta, trials)
    running: list[Decision] = []
    while True:
        while len(running) < workers and (decision := watched.issue()) is not None:
            running.append(decision)
        if not running:
            break
        # a worker is idle only when all trials are started
        assert len(running) == workers or watched.asha.started == trials
        done = running.pop(data.draw(st.integers(0, len(running) - 1)))
        watched.tell(done, data.draw(LOSSES))
    assert watched.asha.started == trials
    assert len(watched.jobs) == len(watched.results)
    # nothing that could be promoted was left
    assert watched.asha.ask() is None


def test_stopping_trains_a_trial_on_at_once_when_it_is_in_the_top_share_of_those_before_it_and_else_never() -> None:
    # ranks of 0.5, 0.4, 0.6, 0.45, 0.7, 0.3 among those before them: 1 of 1, 1 of 2, 3 of 3, 2 of 4, 5 of 5, 1 of 6;
    # the top third, rounded up, is 1, 1, 1, 2, 2, 2
    asha = Asha((rungs(3),), stopping=True)
    went_on = []
    for loss in (0.5, 0.4, 0.6, 0.45, 0.7, 0.3):
        (first,) = start(asha, [loss])
        decision = asha.ask()
        assert decision is not None
        if decision.trial == first.trial:
            assert (decision.start, decision.stop) == (1, 3)
            asha.issue(decision)
            asha.tell(decision, loss)
            went_on.append(decision.trial)
    assert went_on == [0, 1, 3, 5]


def test_stopping_never_trains_a_failed_trial_on() -> None:
    asha = Asha((rungs(3),), stopping=True)
    start(asha, [None, nan])
    decision = asha.ask()
    assert decision is not None
    assert decision.start == 0
