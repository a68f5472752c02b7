"""Every method against an exhaustive search, on small libraries."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.selection import select_members
from ripieno.selection.cross_entropy import best_weights
from ripieno.selection.validation import SelectionMethod
from ripieno.tasks.metrics import cross_entropy

METHODS: list[SelectionMethod] = ["smobf-r", "smobf", "forward", "replacement", "top-k", "best", "swap", "exact"]


def library(seed: int, members: int = 9, samples: int = 40) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return networks of different quality that find the same samples hard."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=samples)
    logits = ease + rng.normal(size=(members, samples)) * rng.uniform(0.8, 2.5, (members, 1)) + 1
    return 1 / (1 + np.exp(-logits)), rng.uniform(1, 5, members)


def loss_of(truth: NDArray[np.float64], members: list[int]) -> float:
    return cross_entropy(truth[members].mean(axis=0))


@pytest.mark.parametrize("seed", range(8))
def test_exact_is_the_best_of_all_ensembles_that_fit(seed: int) -> None:
    truth, costs = library(seed)
    fitting = [s for k in range(1, 10) for s in combinations(range(9), k) if costs[list(s)].sum() <= 9]
    best = min(loss_of(truth, list(s)) for s in fitting)
    choice = select_members(truth, costs=costs, budget=9.0, method="exact")
    assert choice.loss == pytest.approx(best, abs=1e-12)
    assert choice.cost <= 9


@pytest.mark.parametrize("seed", range(8))
def test_swap_is_between_smobf_and_exact(seed: int) -> None:
    truth, costs = library(seed)
    smobf, swap, exact = (
        select_members(truth, costs=costs, budget=9.0, method=m).loss for m in ("smobf", "swap", "exact")
    )
    assert exact - 1e-12 <= swap <= smobf


@pytest.mark.parametrize("seed", range(8))
def test_no_exchange_betters_what_swap_answers(seed: int) -> None:
    truth, costs = library(seed)
    choice = select_members(truth, costs=costs, budget=9.0, method="swap")
    for out in choice.members:
        for new in set(range(9)) - set(choice.members):
            members = [*(m for m in choice.members if m != out), new]
            assert costs[members].sum() > 9 or loss_of(truth, members) > choice.loss - 1e-11


@pytest.mark.parametrize("seed", [8, 17, 22, 46])
def test_swap_escapes_a_local_optimum_of_the_greedy(seed: int) -> None:
    truth, costs = library(seed)
    smobf, swap, exact = (select_members(truth, costs=costs, budget=9.0, method=m) for m in ("smobf", "swap", "exact"))
    assert swap.loss == pytest.approx(exact.loss, abs=1e-12)
    assert swap.loss < smobf.loss
    assert len(set(smobf.members) - set(swap.members)) > 0


def test_swap_adds_what_the_price_kept_smobf_from() -> None:
    truth = np.array([[0.9, 0.3], [0.3, 0.9]])
    smobf, swap = (
        select_members(truth, costs=[1.0, 15.0], budget=16.0, method=m, weights=(0.7,)).members
        for m in ("smobf", "swap")
    )
    assert (smobf, swap) == ((0,), (0, 1))


@pytest.mark.parametrize("method", ["smobf", "swap", "exact"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_size_is_never_passed(method: SelectionMethod, size: int) -> None:
    truth, _ = library(8, members=12)
    assert len(select_members(truth, method=method, size=size).members) <= size


@pytest.mark.parametrize("seed", range(5))
def test_forward_takes_the_lowest_loss_at_each_step(seed: int) -> None:
    truth, _ = library(seed)
    members: list[int] = []
    for _ in range(5):
        members.append(min(set(range(9)) - set(members), key=lambda m: loss_of(truth, [*members, m])))
    assert select_members(truth, method="forward", size=5).members == tuple(members)


def test_forward_of_a_size_goes_on_though_the_loss_rises_and_without_a_size_stops() -> None:
    truth = np.array([[0.9, 0.8], [0.5, 0.5], [0.1, 0.1]])
    assert select_members(truth, method="forward", size=3).members == (0, 1, 2)
    assert select_members(truth, method="forward").members == (0,)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [100.0, 12.0])
def test_replacement_takes_the_lowest_loss_at_each_step_and_keeps_the_best_prefix(seed: int, budget: float) -> None:
    truth, costs = library(seed)
    picks: list[int] = []
    losses = []
    for _ in range(12):
        fitting = [m for m in range(9) if costs[list({*picks, m})].sum() <= budget]
        picks.append(min(fitting, key=lambda m: loss_of(truth, [*picks, m])))
        losses.append(loss_of(truth, picks))
    choice = select_members(truth, costs=costs, budget=budget, method="replacement", size=12)
    assert choice.steps == tuple(picks[: int(np.argmin(losses)) + 1])
    assert choice.combiner == "weighted"
    assert choice.loss == pytest.approx(-np.log(choice.weights @ truth[list(choice.members)]).mean(), abs=1e-12)


def test_replacement_pays_for_a_member_once() -> None:
    truth = np.array([[0.9, 0.7], [0.7, 0.9]])
    choice = select_members(truth, costs=[3.0, 4.0], budget=7.0, method="replacement", size=10)
    assert choice.cost == 7.0
    assert choice.weights == (0.5, 0.5)


def test_top_k_takes_the_lowest_own_losses_that_fit() -> None:
    truth = np.array([[0.5], [0.9], [0.7], [0.8]])
    assert select_members(truth, method="top-k", size=3).members == (1, 3, 2)
    assert select_members(truth, costs=[1, 2, 1, 5], budget=4.0, method="top-k", size=3).members == (1, 2, 0)


def test_best_is_the_lowest_own_loss_that_fits() -> None:
    truth = np.array([[0.5], [0.9], [0.7]])
    assert select_members(truth, costs=[1, 3, 2], budget=2.0, method="best").members == (2,)


def test_of_members_equally_good_alone_the_cheaper_goes_first() -> None:
    truth = np.array([[0.7], [0.9], [0.9], [0.9]])
    assert select_members(truth, costs=[1, 3, 2, 3], budget=9.0, method="best").members == (2,)
    assert select_members(truth, costs=[1, 3, 2, 3], budget=9.0, method="top-k", size=3).members == (2, 1, 3)


def test_exact_refuses_what_would_take_for_ever() -> None:
    truth, costs = library(0, members=40)
    with pytest.raises(SelectionError, match="at most 1048576"):
        select_members(truth, costs=costs, method="exact", prune=1.0)
    assert len(select_members(truth, costs=costs, method="exact", prune=1.0, size=2).members) <= 2


@given(st.integers(0, 10**6), st.sampled_from(METHODS), st.floats(1, 12), st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_method_passes_any_budget(seed: int, method: SelectionMethod, budget: float, two: bool) -> None:
    truth, costs = library(seed, members=7, samples=15)
    kinds = {"seconds": costs, "memory": np.random.default_rng(seed).uniform(1, 5, 7)} if two else {"seconds": costs}
    bounds = dict.fromkeys(kinds, budget)
    if all(any(kind[m] > budget for kind in kinds.values()) for m in range(7)):
        with pytest.raises(SelectionError, match="no member fits"):
            select_members(truth, costs=kinds, budget=bounds, method=method)
        return
    choice = select_members(truth, costs=kinds, budget=bounds, method=method)
    assert all(choice.costs[k] <= budget * (1 + 1e-9) for k in kinds)
    assert choice.costs["seconds"] == pytest.approx(costs[list(choice.members)].sum())
    assert sum(choice.weights) == pytest.approx(1)
    assert len(set(choice.members)) == len(choice.members) == len(choice.weights)


@given(st.integers(0, 10**6), st.sampled_from(METHODS))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_library_does_not_matter(seed: int, method: SelectionMethod) -> None:
    truth, costs = library(seed, members=8, samples=20)
    shuffle = np.random.default_rng(seed).permutation(8)
    plain = select_members(truth, costs=costs, budget=9.0, method=method)
    shuffled = select_members(truth[shuffle], costs=costs[shuffle], budget=9.0, method=method)
    if method == "exact":  # named in the order of the library
        assert sorted(shuffle[list(shuffled.members)]) == sorted(plain.members)
    else:
        assert tuple(shuffle[list(shuffled.members)]) == plain.members
    assert shuffled.loss == pytest.approx(plain.loss, abs=1e-12)


def test_pruning_keeps_a_share_but_at_least_twenty() -> None:
    rng = np.random.default_rng(1)
    truth = rng.beta(2, 1, (200, 10))
    ranks = np.argsort(np.argsort(-np.log(truth).mean(axis=1)))
    everything = select_members(truth, method="top-k", size=40)
    assert sorted(ranks[list(everything.members)]) == list(range(40))
    assert len(select_members(truth, method="forward", size=40, prune=0.1).members) == 20
    assert len(select_members(truth[:25], method="forward", size=25, prune=0.2).members) == 20


def test_the_share_that_pruning_keeps_is_one_of_the_whole_library_rounded_up() -> None:
    truth = np.random.default_rng(1).beta(2, 1, (201, 10))
    costs = np.where(np.arange(201) < 150, 1.0, 9000.0)  # 51 are too expensive for any budget below
    for prune, kept in ((0.2, 41), (0.4, 81), (0.74, 149), (1.0, 150)):
        assert (
            len(select_members(truth, costs=costs, budget=8000.0, method="top-k", size=201, prune=prune).members)
            == kept
        )


def test_pruning_never_takes_away_all_that_a_budget_can_buy() -> None:
    truth = np.linspace(0.99, 0.1, 100)[:, None] * np.ones((1, 5))
    costs = np.linspace(100, 1, 100)  # the worse, the cheaper
    assert select_members(truth, costs=costs, budget=1.5, method="smobf").members == (99,)


@pytest.mark.parametrize("method", METHODS)
def test_the_certificate_bounds_what_any_weights_could_gain(method: SelectionMethod) -> None:
    truth, _ = library(5)
    choice = select_members(truth, method=method, certify=True)
    _, loss, lowest = best_weights(truth, 5000)
    assert choice.certificate is not None
    assert lowest <= loss
    assert choice.loss - choice.certificate <= loss
    assert loss - lowest < 1e-3


@pytest.mark.parametrize("budget", [2.0, 4.0, 9.0])
def test_the_certificate_is_no_larger_than_what_the_best_weights_gain(budget: float) -> None:
    truth, costs = library(5)
    choice = select_members(truth, costs=costs, budget=budget, certify=True, method="smobf")
    affordable = truth[costs <= budget]
    _, loss, _ = best_weights(affordable, 5000)
    assert choice.certificate is not None
    assert choice.loss - loss <= choice.certificate <= choice.loss - loss + 1e-4


def test_an_ensemble_that_nothing_can_better_has_a_certificate_of_zero() -> None:
    choice = select_members(np.array([[0.9, 0.8], [0.5, 0.5]]), certify=True, method="smobf")
    assert choice.members == (0,)
    assert choice.certificate == pytest.approx(0, abs=1e-6)
    assert choice.certificate >= 0


@pytest.mark.parametrize("iterations", [1, 2, 5, 20, 100, 1000])
def test_the_best_weights_are_between_their_loss_and_their_bound_for_any_number_of_iterations(iterations: int) -> None:
    for seed in range(4):
        truth, _ = library(seed, members=30)
        weights, loss, lowest = best_weights(truth, iterations)
        _, best, _ = best_weights(truth, 5000)
        assert weights.sum() == pytest.approx(1)
        assert weights.min() >= 0
        assert loss == pytest.approx(-np.log(weights @ truth).mean())
        assert lowest <= best <= loss + 1e-9
        assert loss <= cross_entropy(truth.mean(axis=0)) + 1e-12  # never worse than the start


@pytest.mark.parametrize("seed", [10, 20, 25])
def test_more_iterations_never_weaken_the_bound_on_the_best_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.beta(rng.uniform(0.1, 1), 1, (rng.integers(2, 30), rng.integers(2, 40)))
    bounds = [best_weights(truth, iterations)[2] for iterations in range(1, 80)]
    assert bounds == sorted(bounds)


@pytest.mark.parametrize("seed", [114, 590, 5481])
def test_a_step_that_overshoots_is_taken_back_and_the_best_weights_are_found_all_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)  # some probabilities are close to zero: the second over-relaxed step is too large
    truth = rng.beta(0.15, 0.15, (rng.integers(2, 6), rng.integers(1, 6)))
    _, loss, lowest = best_weights(truth)
    assert loss - lowest < 1e-4


def test_the_best_weights_of_sure_mistakes_are_numbers() -> None:
    weights, loss, lowest = best_weights(np.array([[0.0, 0.0], [0.0, 0.9]]))
    assert np.isfinite([*weights, loss, lowest]).all()
    assert loss == pytest.approx(-np.log(1e-15) / 2 - np.log(0.9) / 2, rel=0.05)


def test_the_best_weights_are_those_of_a_fine_grid() -> None:
    truth, _ = library(2, members=2)
    grid = np.linspace(0.0005, 0.9995, 1000)
    losses = [-np.log(w * truth[0] + (1 - w) * truth[1]).mean() for w in grid]
    weights, loss, _ = best_weights(truth, 5000)
    assert loss <= min(losses) + 1e-6
    assert weights[0] == pytest.approx(grid[int(np.argmin(losses))], abs=0.02)


@pytest.mark.parametrize("method", ["forward", "top-k"])
@pytest.mark.parametrize("seed", range(8))
def test_a_size_is_kept_whenever_the_budget_can_pay_for_it(method: SelectionMethod, seed: int) -> None:
    """The best members are expensive here: a method that selects one first has too little budget for the rest."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(2, 1, (12, 40))
    costs = np.empty(12)
    costs[np.argsort(-np.log(truth).mean(axis=1))] = np.linspace(10, 1, 12)
    costs = np.stack([costs, rng.permutation(costs)], axis=1)[:, : 1 + seed % 2]
    cheapest = np.sort(costs, axis=0)[:5].sum(axis=0)
    if costs.shape[1] == 1:
        budget = float(cheapest[0]) * 1.1
        chosen = select_members(truth, costs=costs[:, 0], budget=budget, method=method, size=5)
        assert len(chosen.members) == 5
        assert chosen.cost <= budget * (1 + 1e-9)
        fewer = select_members(truth, costs=costs[:, 0], budget=float(cheapest[0]) * 0.999, method=method, size=5)
        assert len(fewer.members) == 4, "as many as can be paid for"
    else:
        budgets = {"a": float(costs[:, 0].sum()), "b": float(cheapest[1]) * 1.1}
        priced = {"a": costs[:, 0], "b": costs[:, 1]}
        assert len(select_members(truth, costs=priced, budget=budgets, method=method, size=5).members) == 5
