"""Successive halving against tables computed by hand, and against invariants for any results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import inf, isfinite, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watched import walk

from ripieno.errors import SearchError
from ripieno.search.algorithms import ALGORITHMS, find_algorithm, make_scheduler
from ripieno.search.asha import Asha, _Rung, hyperband, rungs, shares
from ripieno.search.scheduler import TrialStep


def start(asha: Asha, losses: list[float | None]) -> list[TrialStep]:
    """Start a trial per loss and report its result."""
    decisions = []
    for loss in losses:
        step = next(d for d in asha.candidates() if d.start == 0)
        asha.start(step)
        asha.tell(step, loss)
        decisions.append(step)
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
        (8, 4, 1, (1, 4, 8)),  # the last step is sqrt(eta), no shorter
        (7, 4, 1, (1, 7)),
        (2, 3, 1, (1, 2)),
        (1, 3, 1, (1,)),
    ],
)
def test_rungs_are_integers_and_end_exactly_at_the_most_epochs(
    epochs: int, eta: int, least: int, ladder: tuple[int, ...]
) -> None:
    assert rungs(epochs, eta, least) == ladder


@pytest.mark.parametrize(
    ("epochs", "step", "ladder"),
    [
        (27, 1.5, (1, 2, 3, 4, 6, 9, 14, 21, 27)),
        (10, 2.5, (1, 2, 5, 10)),
        (8, 1.1, (1, 2, 3, 4, 5, 6, 7, 8)),
        (230, 2.3, (1, 2, 5, 12, 28, 64, 147, 230)),
        (30, 100, (1, 30)),
    ],
)
def test_rungs_of_a_fractional_step_are_rounded_and_grow(epochs: int, step: float, ladder: tuple[int, ...]) -> None:
    assert rungs(epochs, step) == ladder


@given(st.integers(1, 3000), st.floats(1.001, 9))
def test_rungs_of_any_step_grow_by_about_it(epochs: int, step: float) -> None:
    ladder = rungs(epochs, step)
    assert (ladder[0], ladder[-1]) == (1, epochs)
    assert all(low < high for low, high in pairwise(ladder))
    assert all(high == low + 1 or abs(high - low * step) <= 0.5 for low, high in pairwise(ladder[:-1]))
    assert len(ladder) < 3 or ladder[-1] ** 2 >= ladder[-2] ** 2 * step


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


def test_proportions_of_brackets_with_two_ratios_are_those_computed_by_hand() -> None:
    # a trial of three rungs costs 1/16 + 1/2 * 1/4 + 1/4 * 1 trainings with step 4 and keep 2: 3 / (7/16) = 6.9
    assert shares(3, keep=2, step=4) == (7, 4, 3)
    # 1/9 + 1/6 * 1/3 + 1/36 with step 3 and keep 6 (2 / ... is 3 / (7/36) = 15.4), 1/3 + 1/6
    assert shares(3, keep=6, step=3) == (16, 6, 3)
    assert Asha(hyperband(16, 4), 2, step=4)._shares == (7, 4, 3)
    assert Asha(hyperband(16, 4), 2)._shares == shares(3, 2, 2)


@given(st.integers(1, 6), st.integers(2, 5), st.floats(1.1, 6))
def test_every_bracket_has_the_same_budget_up_to_a_trial(brackets: int, keep: int, step: float) -> None:
    for rungs_above, count in zip(reversed(range(brackets)), shares(brackets, keep, step), strict=True):
        # of the trials started, those that reach each rung, times its epochs in full trainings
        cost = sum(keep**-rung * step ** (rung - rungs_above) for rung in range(rungs_above + 1))
        assert brackets * 0.999 <= count * cost <= (brackets + cost) * 1.001


def test_new_trials_are_dealt_between_brackets_in_their_proportions() -> None:
    asha = Asha(hyperband(27), trials=98)
    stops = [d.stop for d in start(asha, [None] * 98)]
    assert [stops[:49].count(stop) for stop in (1, 3, 9, 27)] == [27, 12, 6, 4]
    assert [stops.count(stop) for stop in (1, 3, 9, 27)] == [54, 24, 12, 8]
    assert set(stops[:7]) == {1, 3, 9, 27}


def test_when_there_is_no_time_for_the_bracket_whose_turn_it_is_another_may_start_the_trial() -> None:
    asha = Asha(hyperband(9), trials=40)
    start(asha, [None] * 3)
    turn, *others = [d for d in asha.candidates() if d.start == 0]
    assert {d.stop for d in (turn, *others)} == {1, 3, 9}
    assert {d.trial for d in (turn, *others)} == {3}
    short = min(others, key=lambda d: d.stop)
    asha.start(short)
    asha.tell(short, 0.5)
    assert next(d for d in asha.candidates() if d.start == 0).stop == turn.stop  # it is still its turn


def test_of_brackets_equally_behind_that_with_more_rungs_goes_first() -> None:
    assert shares(3, 2) == (4, 3, 3)
    assert [d.stop for d in start(Asha(hyperband(4, 2), 2), [None] * 3)] == [1, 2, 4]


def test_a_trial_is_promoted_when_it_is_in_the_top_third_of_its_rung() -> None:
    asha = Asha((rungs(9),), trials=6)
    start(asha, [0.5, 0.4])
    assert next(asha.candidates(), None) == TrialStep(2, 0, 1)  # a third of two results is none
    start(asha, [0.6])
    assert next(asha.candidates(), None) == TrialStep(1, 1, 3)  # the best of three
    asha.start(TrialStep(1, 1, 3))
    assert next(asha.candidates(), None) == TrialStep(3, 0, 1)  # promoted once only
    start(asha, [0.7])
    assert next(asha.candidates(), None) == TrialStep(4, 0, 1)
    start(asha, [0.3])
    assert next(asha.candidates(), None) == TrialStep(4, 1, 3)  # the best of five
    asha.start(TrialStep(4, 1, 3))
    start(asha, [0.8])
    assert next(asha.candidates(), None) is None  # both of the top two of six are promoted, and all trials are started


def test_the_highest_rung_goes_first_and_the_best_of_it() -> None:
    asha = Asha((rungs(9),), trials=20)
    start(asha, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2])
    for trial, loss in ((0, 0.30), (1, 0.20), (2, 0.25)):
        assert next(asha.candidates(), None) == TrialStep(trial, 1, 3)
        asha.start(TrialStep(trial, 1, 3))
        asha.tell(TrialStep(trial, 1, 3), loss)
    assert list(asha.candidates()) == [TrialStep(1, 3, 9), TrialStep(3, 1, 3), TrialStep(12, 0, 1)]


def test_equal_losses_are_ranked_by_trial() -> None:
    asha = Asha((rungs(3),), trials=3)
    start(asha, [0.5, 0.5, 0.5])
    assert next(asha.candidates(), None) == TrialStep(0, 1, 3)


@pytest.mark.parametrize("failed", [None, nan, float("inf")])
def test_a_failed_trial_is_worse_than_all_others_and_never_promoted(failed: float | None) -> None:
    asha = Asha((rungs(9),), trials=9)
    start(asha, [failed, failed, failed])
    assert next(asha.candidates(), None) == TrialStep(3, 0, 1)
    start(asha, [9.0, failed, failed])
    assert [d for d in asha.candidates() if d.start] == [TrialStep(3, 1, 3)]


def test_late_results_still_promote_when_all_trials_were_started() -> None:
    asha = Asha((rungs(3),), trials=3)
    for trial in range(3):
        asha.start(TrialStep(trial, 0, 1))
    asha.tell(TrialStep(0, 0, 1), 0.5)
    asha.tell(TrialStep(1, 0, 1), 0.4)
    assert next(asha.candidates(), None) is None
    asha.tell(TrialStep(2, 0, 1), 0.3)
    assert next(asha.candidates(), None) == TrialStep(2, 1, 3)


def test_random_search_trains_every_trial_to_the_end() -> None:
    scheduler = make_scheduler(find_algorithm("random"), 27, 2)
    for trial in range(2):
        (step,) = scheduler.candidates()
        assert step == TrialStep(trial, 0, 27)
        scheduler.start(step)
        scheduler.tell(step, 0.1)
    assert list(scheduler.candidates()) == []


def test_every_algorithm_has_a_scheduler_and_unknown_ones_are_refused() -> None:
    assert all(next(make_scheduler(a, 9, 1).candidates()).start == 0 for a in ALGORITHMS.values())
    with pytest.raises(SearchError, match="there are: hyperband, asha, random, bohb"):
        find_algorithm("grid")


def test_impossible_numbers_are_refused() -> None:
    for step in (1, 0.5, nan, inf):
        with pytest.raises(SearchError, match="step above 1"):
            rungs(9, step)
    with pytest.raises(SearchError, match="0 trials"):
        Asha(((1,),), trials=0)


LOSSES = st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.25, 0.5]))


@settings(max_examples=60, deadline=None)
@given(
    st.data(), st.integers(1, 30), st.floats(1.2, 5), st.integers(2, 4), st.integers(1, 30), st.integers(1, 6),
    st.booleans(),
)  # fmt: skip
def test_no_job_twice_no_promotion_below_the_top_share_and_no_worker_idle(
    data: st.DataObject, epochs: int, step: float, keep: int, trials: int, workers: int, brackets: bool
) -> None:
    walk(
        hyperband(epochs, step) if brackets else (rungs(epochs, step),),
        keep,
        trials,
        workers,
        lambda count: data.draw(st.integers(0, count - 1)),
        lambda: data.draw(LOSSES),
    )


class Mutants:
    """Faulty variants of `Asha`, each a change of one method."""

    @staticmethod
    def promotes_whoever_waits(rung: _Rung, eta: int, *_: object) -> list[tuple[float, int]]:
        return [found for found in rung.waiting if isfinite(found[0])]

    @staticmethod
    def rounds_the_share_up(rung: _Rung, eta: int, *_: object) -> list[tuple[float, int]]:
        top = rung.ranking[: -(-len(rung.ranking) // eta)]
        return [found for found in rung.waiting if found in top and isfinite(found[0])]

    @staticmethod
    def promotes_failures(rung: _Rung, eta: int, *_: object) -> list[tuple[float, int]]:
        top = rung.ranking[: len(rung.ranking) // eta]
        return [found for found in rung.waiting if found in top]

    @staticmethod
    def never_promotes(rung: _Rung, eta: int, *_: object) -> list[tuple[float, int]]:
        return []

    @staticmethod
    def forgets_who_was_promoted(rung: _Rung, trial: int) -> None:
        pass

    @staticmethod
    def ranks_backwards(rung: _Rung, loss: float, trial: int) -> None:
        rung.ranking = sorted([*rung.ranking, (-loss, trial)])
        rung.waiting = sorted([*rung.waiting, (-loss, trial)])


@pytest.mark.parametrize(
    ("method", "mutant"),
    [
        ("promotable", Mutants.promotes_whoever_waits),
        ("promotable", Mutants.rounds_the_share_up),
        ("promotable", Mutants.promotes_failures),
        ("promotable", Mutants.never_promotes),
        ("promote", Mutants.forgets_who_was_promoted),
        ("add", Mutants.ranks_backwards),
    ],
)
def test_a_wrong_rung_is_found_out(method: str, mutant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Rung, method, mutant)
    with pytest.raises(AssertionError):
        walks(100)


def test_waiting_for_a_full_rung_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Asha.candidates

    def synchronous(asha: Asha) -> Iterator[TrialStep]:
        """Start no new trial while fewer than eta of the started trials have a result."""
        results = sum(len(rung.ranking) for ladder in asha._rungs for rung in ladder.values())
        return (d for d in right(asha) if d.start or asha.started < asha.keep or results >= asha.keep)

    monkeypatch.setattr(Asha, "candidates", synchronous)
    with pytest.raises(AssertionError):
        walks(100)


def walks(count: int) -> None:
    """Run searches of all shapes, drawn from a seed."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        eta, epochs, trials, workers = (
            int(rng.integers(low, high)) for low, high in ((2, 5), (1, 31), (1, 31), (1, 7))
        )
        brackets = hyperband(epochs, eta) if rng.integers(2) else (rungs(epochs, eta),)

        def loss(rng: np.random.Generator = rng) -> float | None:
            return None if rng.uniform() < 0.3 else float(rng.choice([0.25, 0.5, rng.uniform()]))

        walk(brackets, eta, trials, workers, lambda count, rng=rng: int(rng.integers(count)), loss)


def test_the_same_searches_hold_when_nothing_is_wrong() -> None:
    walks(100)


def test_stopping_trains_a_trial_on_at_once_when_it_is_in_the_top_share_of_those_before_it_and_else_never() -> None:
    # ranks of 0.5, 0.4, 0.6, 0.45, 0.7, 0.3 among those before them: 1 of 1, 1 of 2, 3 of 3, 2 of 4, 5 of 5, 1 of 6;
    # the top third, rounded up, is 1, 1, 1, 2, 2, 2
    asha = Asha((rungs(3),), stopping=True)
    went_on = []
    for loss in (0.5, 0.4, 0.6, 0.45, 0.7, 0.3):
        (first,) = start(asha, [loss])
        step = next(asha.candidates(), None)
        assert step is not None
        if step.trial == first.trial:
            assert (step.start, step.stop) == (1, 3)
            asha.start(step)
            asha.tell(step, loss)
            went_on.append(step.trial)
    assert went_on == [0, 1, 3, 5]


def test_stopping_never_trains_a_failed_trial_on() -> None:
    asha = Asha((rungs(3),), stopping=True)
    start(asha, [None, nan])
    step = next(asha.candidates(), None)
    assert step is not None
    assert step.start == 0


@pytest.mark.parametrize(
    ("loss", "order"), [(0.1, [0, 1, 3]), (0.2, [0, 1, 3]), (0.3, [1, 0, 3]), (0.4, [1, 0, 3]), (0.5, [1, 3, 0])]
)
def test_of_one_rung_the_best_is_promoted_first_whichever_bracket_it_is_in(loss: float, order: list[int]) -> None:
    asha = Asha(((1, 3, 9), (3, 9)), 2, trials=8)
    # even trials start in the bracket from 1, odd ones in that from 3
    start(asha, [0.7, 0.2, 0.8, 0.4, 0.9, 0.6, 0.9, 0.8])
    for trial, reached in ((0, loss), (2, 0.9)):
        promotion = TrialStep(trial, 1, 3)
        assert promotion in asha.candidates()
        asha.start(promotion)
        asha.tell(promotion, reached)
    # the better of two, the better two of four
    assert [d.trial for d in asha.candidates() if d.start == 3] == order


@pytest.mark.parametrize("stopping", [False, True])
def test_a_loss_that_is_no_number_changes_no_decision_that_a_failure_would_not(stopping: bool) -> None:
    searches = []
    for failed in (None, nan, float("inf"), -float("inf")):
        rng = np.random.default_rng(0)
        asha = Asha(hyperband(9), trials=60, stopping=stopping)
        searches.append([])
        while (step := next(asha.candidates(), None)) is not None:
            searches[-1].append(step)
            asha.start(step)
            draw = float(rng.uniform())
            asha.tell(step, failed if draw < 0.3 else draw)
    assert searches[1:] == searches[:1] * 3
    assert {d.start for d in searches[0]} == {0, 1, 3}


def test_the_rank_of_a_promoted_trial_is_that_in_its_rung_and_bracket() -> None:
    asha = Asha(hyperband(9), trials=20)
    for trial in range(16):
        step = next(step for step in asha.candidates() if step.start == 0)
        assert asha.rank(step) is None
        asha.start(step)
        asha.tell(step, float(trial))
    promoted = next(step for step in asha.candidates() if step.start == 1)
    rung = [t for t in range(16) if asha._bracket[t] == asha._bracket[promoted.trial]]
    assert asha.rank(promoted) == (1, len(rung))
    asha.start(promoted)
    following = next(step for step in asha.candidates() if step.start == 1)
    assert asha.rank(following) == (2, len(rung))


def test_a_favoured_trial_goes_on_while_it_is_in_the_better_half() -> None:
    asha = Asha(((1, 3, 9),), is_favoured=lambda trial: trial < 4)
    start(asha, [0.5])
    assert next(asha.candidates()) == TrialStep(0, 1, 3)  # the only one
    start(asha, [0.4, 0.3, 0.6, 0.35])
    promoted = [step.trial for step in asha.candidates() if step.start]
    assert promoted == [2, 1]  # of 0.3, 0.35, 0.4, 0.5, 0.6: 4 is not favoured, 3 and 0 are in the worse half
    plain = Asha(((1, 3, 9),))
    start(plain, [0.5, 0.4, 0.3, 0.6, 0.35])
    assert [step.trial for step in plain.candidates() if step.start] == [2]


def test_a_failed_favoured_trial_stops() -> None:
    asha = Asha(((1, 3),), is_favoured=lambda trial: True)
    start(asha, [None])
    assert all(step.start == 0 for step in asha.candidates())


def test_with_stopping_a_favoured_trial_trains_on_in_the_better_half() -> None:
    asha = Asha(((1, 3),), stopping=True, is_favoured=lambda trial: trial == 2)
    start(asha, [0.5, 0.6, 0.55])
    assert [step.trial for step in asha.candidates() if step.start] == [0, 2]
