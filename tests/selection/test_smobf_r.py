"""Equation 2 with replacement, against a literal implementation and the methods that it extends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.selection import front, select_members
from ripieno.selection.smobf_r import GAIN, PATIENCE, PICKS
from ripieno.tasks.metrics import cross_entropy


def library(seed: int, members: int = 8, samples: int = 40) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return true-class probabilities and costs of members of unequal quality and cost."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(rng.uniform(0.8, 4, (members, 1)), 1.0, (members, samples))
    return truth, rng.lognormal(0, 1, members)


def literal(
    truth: NDArray[np.float64],
    cost: Callable[[Iterable[int]], float],
    budget: float,
    w: float,
    start: list[int],
    patience: int = PATIENCE,
) -> tuple[float, list[int]]:
    """Return the lowest loss on a run, and its picks; one candidate at a time, without any sharing."""
    picks = start
    best = (cross_entropy(truth[picks].mean(axis=0)) if picks else np.inf, picks)
    mark, without_gain = best[0], 0
    while len(picks) < PICKS and without_gain < patience:
        scores = {}
        for member in range(len(truth)):
            total = cost({*picks, member})
            if total <= budget * (1 + 1e-9):
                loss = cross_entropy(truth[[*picks, member]].mean(axis=0))
                scores[member] = (1 - w) * loss + w * total / budget
        picks = [*picks, min(scores, key=lambda m: scores[m])]
        loss = cross_entropy(truth[picks].mean(axis=0))
        mark, without_gain = (mark, without_gain + 1) if loss > mark - GAIN else (loss, 0)
        best = (loss, picks) if loss < best[0] else best
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("w", [0.1, 0.01, 0.0])
@pytest.mark.parametrize("backbone", [None, 2.0])
def test_the_loss_is_that_of_the_best_literal_run(seed: int, w: float, backbone: float | None) -> None:
    truth, costs = library(seed)
    budget = float(costs.mean() * 2) + (backbone or 0.0)
    shared = ["" if backbone is None or m % 3 == 0 else "backbone" for m in range(len(truth))]

    def cost(members: Iterable[int]) -> float:
        distinct = sorted(set(members))
        return float(costs[distinct].sum()) + (backbone or 0.0) * any(shared[m] for m in distinct)

    parts: dict[str, Any] = {} if backbone is None else {"shared": shared, "shared_costs": {"backbone": backbone}}
    choice = select_members(truth, None, costs, budget, "smobf-r", weights=(w,), starts=3, prune=1.0, **parts)
    alone = [cross_entropy(row) for row in truth]
    starts = sorted((m for m in range(len(truth)) if cost([m]) <= budget), key=lambda m: alone[m])[:3]
    loss, picks = min(literal(truth, cost, budget, w, start) for start in ([], *([m] for m in starts)))
    refined = literal(truth, cost, budget, 0.0, picks, patience=PICKS)[0]
    assert choice.loss == pytest.approx(min(loss, refined), abs=1e-9)
    assert choice.cost <= budget * (1 + 1e-9)
    assert choice.combiner == "weighted"
    assert sum(choice.weights) == pytest.approx(1.0)


def test_a_member_picked_again_weighs_more_and_costs_nothing_more() -> None:
    # three times log(.9 w + .1 (1 - w)) and once the reverse: the best w is .8125
    truth = np.array([[0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.1, 0.9]])
    choice = select_members(truth, None, [1.0, 1.0], 2.0, "smobf-r")
    assert choice.members == (0, 1)
    assert choice.weights[0] == pytest.approx(0.8125, abs=0.01)
    assert choice.cost == 2.0


def test_a_start_finds_what_an_expensive_first_pick_forbids() -> None:
    # c is the best alone and takes the whole budget; a and b complement each other
    truth = np.array([[0.9, 0.4, 0.9, 0.4], [0.4, 0.9, 0.4, 0.9], [0.62, 0.62, 0.62, 0.62]])
    costs, budget = [1.0, 1.0, 2.0], 2.0
    assert select_members(truth, None, costs, budget, "smobf-r", starts=0, weights=(0.0,)).members == (2,)
    assert set(select_members(truth, None, costs, budget, "smobf-r", weights=(0.0,)).members) == {0, 1}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_size_bounds_the_distinct_members(size: int) -> None:
    truth, _ = library(1)
    assert len(select_members(truth, method="smobf-r", size=size).members) <= size


@pytest.mark.parametrize("seed", range(4))
def test_a_larger_budget_never_gives_a_higher_loss(seed: int) -> None:
    truth, costs = library(seed, members=12)
    budgets = [float(costs.min() * k) for k in (1, 2, 4, 8, 16, 64)]
    losses = [choice.loss for choice in front(truth, None, costs, budgets, "smobf-r")]
    assert losses == sorted(losses, reverse=True)
    whole = front(truth, None, costs, method="smobf-r")
    assert [c.cost for c in whole] == sorted(c.cost for c in whole)
    assert [c.loss for c in whole] == sorted((c.loss for c in whole), reverse=True)


def test_it_is_the_default_except_for_a_median_which_has_no_weights() -> None:
    cube = np.random.default_rng(0).dirichlet(np.ones(3), (5, 30))
    labels = np.random.default_rng(1).integers(0, 3, 30)
    assert select_members(cube, labels).combiner == "weighted"
    assert select_members(cube, labels, combiner="median").combiner == "median"
    with pytest.raises(SelectionError, match="a median has no weights"):
        select_members(cube, labels, method="smobf-r", combiner="median")
