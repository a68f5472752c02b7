from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.selection import front, select_members
from ripieno.selection.validation import SelectionMethod


def library(seed: int, members: int = 12) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.beta(rng.uniform(0.5, 3, (members, 1)), 1, (members, 30)), rng.uniform(1, 9, members)


@given(
    st.integers(0, 10**6),
    st.sampled_from(["smobf", "forward", "replacement", "top-k", "swap", "best"]),
    st.lists(st.floats(9, 60), min_size=1, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_more_budget_never_gives_a_higher_loss_and_never_less_than_one_run(
    seed: int, method: SelectionMethod, budgets: list[float]
) -> None:
    truth, costs = library(seed)
    choices = front(truth, costs=costs, budgets=budgets, method=method)
    for choice, budget in zip(choices, budgets, strict=True):
        assert choice.cost <= budget * (1 + 1e-9)
        assert choice.loss <= select_members(truth, costs=costs, budget=budget, method=method).loss
    ordered = [choice.loss for _, choice in sorted(zip(budgets, choices, strict=True), key=lambda p: p[0])]
    assert all(a >= b for a, b in pairwise(ordered))


@pytest.mark.parametrize("seed", range(5))
def test_the_front_of_all_budgets_rises_in_cost_and_falls_in_loss(seed: int) -> None:
    truth, costs = library(seed)
    choices = front(truth, costs=costs, method="smobf")
    assert all(a.cost < b.cost and a.loss > b.loss for a, b in pairwise(choices))
    assert choices[0].members == (int(np.argmin(costs)),) or choices[0].cost == pytest.approx(costs.min())
    cheap = [c for c in choices if c.cost <= 20]
    assert cheap[-1].loss <= select_members(truth, costs=costs, budget=20.0, method="smobf").loss + 0.05


def test_a_budget_gets_an_intermediate_ensemble_of_another_budget() -> None:
    # each member errs on another sample. For 17 the second member costs most of the budget, more than it gains. For
    # 3200 all are cheap, and the pair that 17 can pay for is an intermediate step
    truth, costs = 0.9 - 0.6 * np.eye(3)[::-1], np.array([1.0, 15.0, 16.0])
    assert select_members(truth, costs=costs, budget=17.0, weights=(0.7,), method="smobf").members == (0,)
    assert select_members(truth, costs=costs, budget=3200.0, weights=(0.7,), method="smobf").members == (0, 1, 2)
    small, large = front(truth, costs=costs, budgets=[17.0, 3200.0], weights=(0.7,), method="smobf")
    assert (small.members, large.members) == ((0, 1), (0, 1, 2))


@pytest.mark.parametrize("method", ["forward", "swap", "exact", "top-k"])
def test_the_front_of_all_budgets_begins_with_the_cheapest_member_and_ends_where_all_are_paid_for(
    method: SelectionMethod,
) -> None:
    truth, costs = 0.9 - 0.6 * np.eye(3), np.array([16.0, 15.0, 1.0])  # every member is needed
    choices = front(truth, costs=costs, method=method)
    assert choices[0].members == (2,)
    assert sorted(choices[-1].members) == [0, 1, 2]
    assert choices[-1].loss == pytest.approx(select_members(truth, costs=costs, method=method).loss)


def test_the_exact_front_is_the_staircase_of_all_ensembles() -> None:
    truth, costs = library(0, members=8)
    every = [list(s) for k in range(1, 9) for s in combinations(range(8), k)]
    budgets = np.linspace(2, 40, 12).tolist()
    budgets = [b for b in budgets if b > costs.min()]
    choices = front(truth, costs=costs, budgets=budgets, method="exact")
    for budget, choice in zip(budgets, choices, strict=True):
        best = min(-np.log(truth[s].mean(axis=0)).mean() for s in every if costs[s].sum() <= budget)
        assert choice.loss == pytest.approx(best)


def test_budgets_of_several_kinds_are_kept_at_once() -> None:
    truth, costs = library(1)
    kinds = {"seconds": costs, "memory": costs[::-1].copy()}
    budgets = [{"seconds": 12.0, "memory": 30.0}, {"seconds": 30.0, "memory": 12.0}, {"seconds": 30.0}]
    for choice, budget in zip(front(truth, costs=kinds, budgets=budgets, method="smobf"), budgets, strict=True):
        assert all(choice.costs[kind] <= bound for kind, bound in budget.items())


def test_what_costs_nothing_is_one_ensemble() -> None:
    truth, _ = library(2)
    choices = front(truth, costs=np.zeros(12), method="smobf")
    assert len(choices) == 1
    assert choices[0].loss == pytest.approx(select_members(truth, method="smobf").loss)


def test_a_budget_that_buys_nothing_is_named() -> None:
    truth, costs = library(3)
    with pytest.raises(SelectionError, match=r"no member fits a budget of 0\.1"):
        front(truth, costs=costs, budgets=[20.0, 0.1], method="smobf")


@pytest.mark.parametrize("method", ["forward", "top-k"])
@pytest.mark.parametrize("seed", range(3))
def test_a_size_is_kept_though_fewer_members_have_a_lower_loss(method: SelectionMethod, seed: int) -> None:
    truth, costs = library(seed)
    for choice in front(truth, costs=costs, budgets=[200.0, 100.0], method=method, size=8):
        assert len(choice.members) == 8
        assert choice.loss == select_members(truth, costs=costs, method=method, size=8).loss
    assert {len(choice.members) for choice in front(truth, costs=costs, method=method, size=8)} == {8}


def test_a_budget_that_cannot_pay_for_the_size_gets_as_many_as_it_pays_for() -> None:
    truth, costs = library(0)
    budgets = [float(np.sort(costs)[:2].sum()), 200.0]
    few, all_of_them = front(truth, costs=costs, budgets=budgets, method="forward", size=8)
    assert 1 <= len(few.members) <= 2
    assert few.cost <= budgets[0]
    assert len(all_of_them.members) == 8
