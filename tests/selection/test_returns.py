"""Selection by returns: nested and greedy ensembles, budgets, ties, and how often rollouts run."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.errors import SelectionError
from ripieno.selection.returns import PolicyCandidate, ReturnSelection

COSTS = [4.0, 1.0, 2.0, 3.0]
OWN = np.array([[10.0, 10.0], [9.0, 9.0], [8.0, 8.0], [1.0, 1.0]])


def cost(policies):
    return {"seconds": sum(COSTS[p] for p in set(policies))}


def selection(value, rules=lambda _: ("vote",), **options):
    """Return a selection among four policies of which `value` tells the return of a candidate, and its rollouts."""
    ran = []

    def rollout(candidates):
        ran.append(list(candidates))
        return np.array([[value(c) - 1.0, value(c) + 1.0] for c in candidates])

    return ReturnSelection(OWN, rules, cost, rollout, **options), ran


def by_set(values):
    """Return a function of the distinct policies of a candidate, 0 where there is none."""
    return lambda c: values.get(frozenset(c.picks), 0.0)


def test_the_best_of_the_nested_ensembles_is_chosen():
    made, ran = selection(by_set({frozenset({0}): 10.0, frozenset({0, 1}): 12.0, frozenset({0, 1, 2}): 11.0}))
    (choice,) = made.select([{}])
    assert choice.members == (0, 1)
    assert (choice.loss, choice.costs, choice.weights) == (-12.0, {"seconds": 5.0}, (0.5, 0.5))
    assert [c.picks for c in ran[0]] == [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)]


def test_a_member_that_does_not_fit_gives_way_to_the_next():
    made, ran = selection(by_set({frozenset({1, 2}): 5.0}), greedy=False)
    (choice,) = made.select([{"seconds": 3.0}])
    assert choice.members == (1, 2)
    assert [c.picks for c in ran[0]] == [(1,), (1, 2)]


def test_the_greedy_search_adds_what_the_nested_ensembles_do_not_have_and_repeats_members():
    values = {(0,): 10.0, (0, 1): 12.0, (0, 1, 3): 13.0, (0, 1, 3, 0): 14.0}
    made, ran = selection(lambda c: values.get(c.picks, 0.0))
    (choice,) = made.select([{}])
    assert choice.members == (0, 1, 3)
    assert choice.weights == (0.5, 0.25, 0.25)
    assert choice.steps == (0, 1, 3, 0)
    assert len(ran) == 4  # the nested ones, two steps that gain, and one that does not


def test_no_more_than_the_largest_number_of_picks():
    made, _ = selection(lambda c: float(len(c.picks)), size=3)
    (choice,) = made.select([{}])
    assert len(choice.steps) == 3


def test_rules_compete_and_one_policy_runs_by_one_of_them():
    made, ran = selection(
        lambda c: {("value", (0, 1)): 20.0, ("vote", (0,)): 10.0}.get((c.rule, c.picks), 0.0),
        rules=lambda _: ("vote", "value"),
        greedy=False,
    )
    (choice,) = made.select([{}])
    assert (choice.combiner, choice.members) == ("value", (0, 1))
    assert [c.rule for c in ran[0] if len(c.picks) == 1] == ["vote"]


def test_unequal_means_are_weighted():
    values = {(0,): 1.0, (0, 1): 2.0, (0, 1, 1): 3.0}
    made, _ = selection(lambda c: values.get(c.picks, 0.0), rules=lambda _: ("mean",))
    (choice,) = made.select([{}])
    assert choice.combiner == "weighted"
    assert np.allclose(choice.weights, (1 / 3, 2 / 3))


def test_a_larger_budget_is_never_worse_and_nothing_runs_twice():
    made, ran = selection(by_set({frozenset({1}): 9.0, frozenset({0}): 5.0, frozenset({1, 2}): 3.0}))
    small, large = made.select([{"seconds": 1.0}, {"seconds": 100.0}])
    assert small.members == large.members == (1,)
    candidates = [c for step in ran for c in step]
    assert len(candidates) == len(set(candidates))


def test_ties_go_to_the_cheaper_ensemble():
    made, _ = selection(lambda _: 7.0)
    (choice,) = made.select([{}])
    assert choice.members == (0,)
    own = np.array([[1.0], [1.0], [1.0], [1.0]])
    tied = ReturnSelection(own, lambda _: ("vote",), cost, lambda cs: np.full((len(cs), 1), 7.0))
    assert tied.select([{}])[0].members == (1,)


def test_a_budget_that_no_policy_fits_names_the_cheapest():
    made, ran = selection(lambda _: 0.0)
    with pytest.raises(SelectionError, match=r"no policy fits the budget of 0.5 seconds: the cheapest needs 1 seconds"):
        made.select([{"seconds": 0.5}])
    assert not ran


def test_the_front_rises_with_the_cost():
    made, _ = selection(by_set({frozenset({1}): 5.0, frozenset({1, 2}): 6.0, frozenset({0, 1, 2}): 9.0}))
    front = made.front("seconds", 8)
    assert [c.members for c in front] == [(1,), (1, 2), (0, 1, 2)]
    assert [c.cost for c in front] == sorted(c.cost for c in front)


def test_weights_of_a_candidate():
    assert PolicyCandidate((3, 1, 3, 3), "vote").weights == {3: 0.75, 1: 0.25}
