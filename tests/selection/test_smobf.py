"""Equation 2 by hand, and against an exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.selection import front, select_members
from ripieno.tasks.metrics import cross_entropy

# members a, b, c on two samples: a and b err on different samples, c is middling on both
TRUTH = np.array([[0.9, 0.3], [0.3, 0.9], [0.55, 0.55]])


def plain_smobf(
    truth: NDArray[np.float64], costs: NDArray[np.float64], budget: float | NDArray[np.float64], w: float
) -> tuple[int, ...]:
    """Run equation 2 literally, one candidate at a time; `costs` (members[, kinds]) with a budget for each kind."""
    chosen: tuple[int, ...] = ()
    score = np.inf
    while True:
        best = (score, -1)
        for member in set(range(len(truth))) - set(chosen):
            r = (costs[[*chosen, member]].sum(axis=0) / budget).max()
            if r <= 1:
                found = (1 - w) * cross_entropy(truth[[*chosen, member]].mean(axis=0)) + w * r
                best = min(best, (found, member)) if found < score else best
        if best[1] < 0:
            return chosen
        score, chosen = best[0], (*chosen, best[1])


def test_the_first_member_is_the_best_alone_and_the_second_the_one_that_complements_it() -> None:
    choice = select_members(TRUTH, costs=[1.0, 1.0, 9.0], budget=2.0, method="smobf")
    assert choice.members == (0, 1)
    assert choice.loss == pytest.approx(-np.log(0.6))
    assert choice.cost == 2.0
    assert choice.weights == (0.5, 0.5)


def test_a_costly_member_is_left_when_its_gain_is_below_its_price() -> None:
    # E(a) = 0.6547, E(a, b) = 0.5108 and b costs 15/16 of the budget, 0.9375: at w = 0.7 the gain 0.3 * 0.1438 = 0.043
    # is below the price 0.7 * 0.9375 = 0.656; at w = 0.1 the gain 0.129 is above the price 0.094
    choice = select_members(TRUTH[:2], costs=[1.0, 15.0], budget=16.0, weights=(0.7,), method="smobf")
    assert choice.members == (0,)
    assert select_members(TRUTH[:2], costs=[1.0, 15.0], budget=16.0, weights=(0.1,), method="smobf").members == (0, 1)


def test_of_the_three_weights_the_ensemble_of_lowest_loss_is_kept() -> None:
    separate = [
        select_members(TRUTH[:2], costs=[1.0, 15.0], budget=16.0, weights=(w,), method="smobf") for w in (0.7, 0.1)
    ]
    assert select_members(TRUTH[:2], costs=[1.0, 15.0], budget=16.0, weights=(0.7, 0.1), method="smobf") == separate[1]


def test_of_equal_losses_the_cheaper_ensemble_is_kept() -> None:
    # w = 0 takes the lowest index, w = 1 the lowest cost; both have the same loss
    choice = select_members(TRUTH[[0, 0]], costs=[2.0, 1.0], budget=2.5, weights=(0.0, 1.0), method="smobf")
    assert choice.members == (1,)


def test_nothing_that_fits_is_one_line_naming_the_cheapest() -> None:
    with pytest.raises(SelectionError, match=r"no member fits a budget of 0\.5: the cheapest, b, costs 1"):
        select_members(TRUTH, costs=[2.0, 1.0, 9.0], budget=0.5, names=["a", "b", "c"], method="smobf")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("w", [0.1, 0.01, 0.001])
def test_members_and_order_are_those_of_equation_2(seed: int, w: float) -> None:
    rng = np.random.default_rng(seed)
    truth, costs = rng.beta(2, 1, (15, 50)), rng.uniform(1, 5, 15)
    choice = select_members(truth, costs=costs, budget=20.0, weights=(w,), method="smobf")
    assert choice.members == plain_smobf(truth, costs, 20.0, w)
    assert choice.loss == pytest.approx(cross_entropy(truth[list(choice.members)].mean(axis=0)), abs=1e-12)


def test_more_budget_never_gives_a_higher_loss() -> None:
    rng = np.random.default_rng(3)
    truth, costs = rng.beta(2, 1, (25, 40)), rng.uniform(1, 5, 25)
    choices = front(truth, costs=costs, budgets=np.linspace(2, 40, 15).tolist(), method="smobf")
    assert all(a.loss >= b.loss for a, b in itertools.pairwise(choices))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("w", [0.9, 0.5, 0.1])
def test_of_several_costs_the_largest_share_of_a_budget_is_what_a_member_costs(seed: int, w: float) -> None:
    rng = np.random.default_rng(seed)
    truth, costs = rng.beta(2, 1, (15, 50)), rng.uniform(1, 5, (15, 2))
    bounds = np.array([20.0, 16.0])
    choice = select_members(truth, costs=costs, budget={"seconds": 20.0, "bytes": 16.0}, weights=(w,), method="smobf")
    assert choice.members == plain_smobf(truth, costs, bounds, w)
    assert choice.cost == (costs[list(choice.members)].sum(axis=0) / bounds).max()


def test_a_member_that_all_but_fills_one_budget_costs_more_than_one_that_half_fills_two() -> None:
    # with costs of 8 and 1 in budgets of 10 the mean of the shares is 0.45, their largest 0.8
    choice = select_members(
        np.array([[0.8], [0.8]]),
        costs=[[8.0, 1.0], [5.0, 5.0]],
        budget={"a": 10, "b": 10},
        weights=(0.9,),
        method="smobf",
    )
    assert choice.members == (1,)
    assert choice.cost == 0.5
    assert choice.costs == {"a": 5.0, "b": 5.0}
