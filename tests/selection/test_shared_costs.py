"""Costs of parts that members share, against sums over all subsets of small random libraries."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.selection import front, select_members
from ripieno.selection.costs import Costs
from ripieno.selection.validation import SelectionMethod
from ripieno.tasks.metrics import cross_entropy

METHODS: list[SelectionMethod] = ["smobf-r", "smobf", "forward", "replacement", "top-k", "best", "swap", "exact"]
MEMBERS = 7


@dataclass(frozen=True)
class SharedLibrary:
    """True-class probabilities, and costs as `select_members` takes them: heads on backbones, and whole networks."""

    truth: NDArray[np.float64]
    costs: dict[str, NDArray[np.float64]]
    shared: list[str]
    shared_costs: dict[str, dict[str, float]]

    def cost(self, members: Iterable[int], kind: str = "seconds") -> float:
        """Sum the cost of some members by the definition: each member and each of their parts once."""
        distinct = set(members)
        parts = {self.shared[m] for m in distinct} - {""}
        return float(sum(self.costs[kind][m] for m in distinct) + sum(self.shared_costs[p][kind] for p in parts))

    def fitting(self, bounds: dict[str, float]) -> list[tuple[int, ...]]:
        """Return every ensemble within `bounds`."""
        sizes = range(1, len(self.truth) + 1)
        every = itertools.chain.from_iterable(itertools.combinations(range(len(self.truth)), k) for k in sizes)
        return [s for s in every if all(self.cost(s, k) <= bound * (1 + 1e-9) for k, bound in bounds.items())]

    def loss(self, members: Iterable[int]) -> float:
        return cross_entropy(self.truth[list(members)].mean(axis=0))

    def keywords(self) -> dict[str, Any]:
        return {"costs": self.costs, "shared": self.shared, "shared_costs": self.shared_costs}

    def checked(self) -> Costs:
        """Return the costs as the methods get them."""
        parts = list(self.shared_costs)
        groups = np.array([parts.index(part) if part else -1 for part in self.shared])
        shared = np.array([list(costs.values()) for costs in self.shared_costs.values()])
        return Costs(tuple(self.costs), np.stack(list(self.costs.values()), axis=1), groups, shared)


def library(seed: int, members: int = MEMBERS, two: bool = False) -> SharedLibrary:
    """Return heads of backbones that cost several heads, and networks that share nothing."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=30)
    logits = ease + rng.normal(size=(members, 30)) * rng.uniform(0.8, 2.5, (members, 1)) + 1
    shared = [("", "a", "b", "c")[n] for n in rng.choice(4, members, p=(0.25, 0.35, 0.25, 0.15))]
    kinds = ("seconds", "memory") if two else ("seconds",)
    whole = np.array([part == "" for part in shared])
    costs = {kind: np.where(whole, rng.uniform(3, 9, members), rng.uniform(0.2, 2, members)) for kind in kinds}
    parts = sorted(set(shared) - {""})
    return SharedLibrary(
        1 / (1 + np.exp(-logits)),
        costs,
        shared,
        {part: {kind: float(rng.uniform(1, 8)) for kind in kinds} for part in parts},
    )


seeds = st.integers(0, 10**6)


@given(seeds, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_member_costs_what_it_adds_to_the_cost_of_those_chosen(seed: int, two: bool) -> None:
    some = library(seed, two=two)
    if not some.shared_costs:
        return
    costs, order = some.checked(), np.random.default_rng(seed).permutation(MEMBERS)
    used = costs.nothing
    for count in range(MEMBERS):
        chosen = [int(m) for m in order[:count]]
        for left in range(MEMBERS):
            expected = [some.cost([*chosen, left], kind) for kind in some.costs]
            own = 0.0 if left not in chosen else costs.values[left]
            assert costs.with_each(used)[left] - own == pytest.approx(expected)
        for total in (used.total, costs.total(chosen), costs.sum_of(chosen).total):
            assert total == pytest.approx([some.cost(chosen, kind) for kind in some.costs])
        part = costs.take(order)
        assert part.with_each(part.sum_of(range(count))) == pytest.approx(costs.with_each(used)[order])
        used = costs.extend(used, int(order[count]))


@given(seeds, st.booleans(), st.floats(1, 40), st.integers(1, MEMBERS))
@settings(max_examples=100, deadline=None)
def test_the_number_of_members_that_fit_is_never_underestimated(seed: int, two: bool, bound: float, most: int) -> None:
    some = library(seed, two=two)
    if not some.shared_costs:
        return
    bounds = dict.fromkeys(some.costs, bound)
    largest = max((len(s) for s in some.fitting(bounds) if len(s) <= most), default=0)
    counted = some.checked().affordable(np.full(len(bounds), bound), np.arange(MEMBERS), most)
    assert counted >= largest
    assert two or counted == largest


@given(seeds, st.booleans(), st.floats(1, 40), st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_no_member_that_leaves_room_for_others_is_left_out(
    seed: int, two: bool, bound: float, more: int, count: int
) -> None:
    some = library(seed, two=two)
    if not some.shared_costs:
        return
    costs, order = some.checked(), np.random.default_rng(seed).permutation(MEMBERS)
    chosen, left = order[:count].tolist(), np.sort(order[count:])
    fitting = set(map(frozenset, some.fitting(dict.fromkeys(some.costs, bound))))
    room = costs.leaves_room(np.full(len(costs.kinds), bound), costs.sum_of(chosen), left, more)
    for member, within in zip(left, room, strict=True):
        others = itertools.combinations([m for m in left if m != member], more)
        possible = any(frozenset((*chosen, member, *rest)) in fitting for rest in others)
        assert within >= possible
        assert two or within == possible


@given(seeds, st.sampled_from(METHODS), st.floats(2, 25), st.booleans(), st.sampled_from([None, 2, 4]))
@settings(max_examples=150, deadline=None)
def test_no_method_passes_a_budget_and_each_names_the_true_cost(
    seed: int, method: SelectionMethod, bound: float, two: bool, size: int | None
) -> None:
    some = library(seed, two=two)
    bounds = dict.fromkeys(some.costs, bound)
    fitting = some.fitting(bounds)
    if not fitting:
        with pytest.raises(SelectionError, match="no member fits"):
            select_members(some.truth, budget=bounds, method=method, size=size, **some.keywords())
        return
    choice = select_members(some.truth, budget=bounds, method=method, size=size, **some.keywords())
    assert tuple(sorted(choice.members)) in fitting
    assert choice.costs == pytest.approx({kind: some.cost(choice.members, kind) for kind in some.costs})
    if method in ("forward", "top-k") and size is not None and not two:
        assert len(choice.members) == max(len(s) for s in fitting if len(s) <= size), "as many as the budget pays for"


@given(seeds, st.floats(2, 25), st.booleans())
@settings(max_examples=60, deadline=None)
def test_exact_is_the_best_of_all_ensembles_that_fit(seed: int, bound: float, two: bool) -> None:
    some = library(seed, two=two)
    bounds = dict.fromkeys(some.costs, bound)
    fitting = some.fitting(bounds)
    if fitting:
        choice = select_members(some.truth, budget=bounds, method="exact", **some.keywords())
        assert choice.loss == pytest.approx(min(map(some.loss, fitting)), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_greedy_methods_come_close_to_the_best_of_all(seed: int) -> None:
    some, bounds = library(seed), {"seconds": 11.0}
    best = min(map(some.loss, some.fitting(bounds)))
    smobf, swap, repeating = (
        select_members(some.truth, budget=bounds, method=method, **some.keywords()).loss
        for method in ("smobf", "swap", "smobf-r")
    )
    assert best - 1e-12 <= swap <= smobf
    assert repeating <= best + 0.02


@pytest.mark.parametrize("seed", range(12))
def test_no_exchange_betters_what_swap_answers(seed: int) -> None:
    some, bounds = library(seed), {"seconds": 11.0}
    fitting = set(some.fitting(bounds))
    choice = select_members(some.truth, budget=bounds, method="swap", **some.keywords())
    for out in (None, *choice.members):
        kept = [m for m in choice.members if m != out]
        for new in set(range(MEMBERS)) - set(choice.members):
            members = sorted([*kept, new])
            assert tuple(members) not in fitting or some.loss(members) > choice.loss - 1e-11


def test_the_second_head_on_a_paid_backbone_costs_a_head() -> None:
    truth = np.array([[0.9, 0.3], [0.3, 0.9], [0.3, 0.88]])
    # heads 0 and 1 share a backbone: together they cost 12; each costs 11 alone, as the network 2
    arguments: dict[str, Any] = {
        "costs": [1.0, 1.0, 11.0],
        "shared": ["body", "body", ""],
        "shared_costs": {"body": 10.0},
    }
    for method in ("smobf-r", "smobf", "swap", "forward", "replacement", "exact"):
        choice = select_members(truth, budget=12.0, method=method, **arguments)
        assert sorted(choice.members) == [0, 1]
        assert choice.cost == 12.0
    assert len(select_members(truth, budget=11.9, method="exact", **arguments).members) == 1
    with pytest.raises(SelectionError, match=r"budget of 10: the cheapest, member 0, costs 11"):
        select_members(truth, budget=10.0, **arguments)


def test_dropping_the_last_head_of_a_backbone_frees_the_cost_of_the_backbone() -> None:
    # greedy takes the head 0, the best alone, and then the network 2; the networks 1 and 2 cost as much and are better.
    # the head 3 is better still, but with 2 and the backbone it costs 13
    truth = np.array([[0.9, 0.5], [0.99, 0.42], [0.5, 0.85], [0.97, 0.45]])
    arguments: dict[str, Any] = {
        "costs": [1.0, 6.0, 5.0, 3.0],
        "shared": ["body", "", "", "body"],
        "shared_costs": {"body": 5.0},
        "weights": (0.0,),
    }
    assert select_members(truth, budget=11.0, method="smobf", **arguments).members == (0, 2)
    choice = select_members(truth, budget=11.0, method="swap", **arguments)
    assert set(choice.members) == {1, 2}
    assert choice.cost == 11.0


@pytest.mark.parametrize("method", ["smobf-r", "smobf", "exact"])
@pytest.mark.parametrize("seed", range(4))
def test_the_front_begins_with_the_cheapest_member_and_its_costs_are_the_true_ones(
    seed: int, method: SelectionMethod
) -> None:
    some = library(seed)
    choices = front(some.truth, method=method, **some.keywords())
    assert choices[0].cost == pytest.approx(min(some.cost([m]) for m in range(MEMBERS)))
    assert all(a.cost < b.cost and a.loss > b.loss for a, b in itertools.pairwise(choices))
    assert [c.cost for c in choices] == pytest.approx([some.cost(c.members) for c in choices])
    if method == "exact":
        assert choices[-1].loss == pytest.approx(min(map(some.loss, some.fitting({"seconds": np.inf}))))


@given(seeds, st.sampled_from(METHODS))
@settings(max_examples=40, deadline=None)
def test_parts_of_one_member_each_are_costs_of_the_member(seed: int, method: SelectionMethod) -> None:
    some = library(seed)
    shared = [f"part {m}" for m in range(MEMBERS)]
    parts = dict.fromkeys(shared, 1.5)
    plain = select_members(some.truth, costs=some.costs["seconds"] + 1.5, budget=12.0, method=method)
    split = select_members(
        some.truth, costs=some.costs["seconds"], budget=12.0, method=method, shared=shared, shared_costs=parts
    )
    assert split.steps == plain.steps
    assert split.cost == pytest.approx(plain.cost)


@pytest.mark.parametrize("shared_costs", [{}, None])
def test_members_that_share_nothing_are_as_without_parts(shared_costs: dict[str, float] | None) -> None:
    some, budget = library(3), {"seconds": 12.0}
    plain = select_members(some.truth, costs=some.costs, budget=budget)
    shared = [""] * MEMBERS
    choice = select_members(some.truth, costs=some.costs, budget=budget, shared=shared, shared_costs=shared_costs)
    assert (choice.steps, choice.cost) == (plain.steps, plain.cost)


TRUTH = np.array([[0.9, 0.3], [0.3, 0.9], [0.5, 0.5]])
TWO = {"seconds": [9, 3, 4], "bytes": [1, 1, 1]}
CASES: list[tuple[str, dict[str, Any]]] = [
    (r"shared is 2 names: expected 3 names, one per member, '' for none", {"shared": ["a", "a"]}),
    (r"shared is 'aab': expected 3 names", {"shared": "aab"}),
    (r"bob shares 7: expected the name of a part, '' for none", {"shared": ["a", 7, ""]}),
    (r"bob shares None: expected", {"shared": ["a", None, ""]}),
    (r"shared_costs has the unknown part 'b': expected one of a$", {"shared_costs": {"a": 1, "b": 1}}),
    (
        r"shared_costs has the unknown part 'a': no member shares any part",
        {"shared": ["", "", ""], "shared_costs": {"a": 1}},
    ),
    (r"shared part 'a' has no cost: add it to shared_costs", {"shared_costs": {}}),
    (r"shared part 'a' has no cost", {"shared_costs": None}),
    (r"shared part 'a' costs -1: costs must be finite and not negative", {"shared_costs": {"a": -1}}),
    (r"shared part 'a' costs nan: costs must be finite", {"shared_costs": {"a": float("nan")}}),
    (r"shared part 'a' costs inf", {"shared_costs": {"a": float("inf")}}),
    (r"costs of shared part 'a' are not numbers", {"shared_costs": {"a": "many"}}),
    (r"shared part 'a' costs \[1, 2\]", {"shared_costs": {"a": [1, 2]}}),
    (r"shared_costs is 3: expected a mapping", {"shared_costs": 3}),
    (r"shared_costs without shared: pass the name", {"shared": None}),
    (r"shared parts need costs of the members .*: pass costs", {"costs": None}),
    (
        r"shared part 'a' has one cost for several kinds \(seconds, bytes\): pass a mapping",
        {"costs": TWO, "budget": {"seconds": 9}},
    ),
    (
        r"shared part 'a' has costs in seconds: expected seconds and bytes",
        {"costs": TWO, "budget": {"seconds": 9}, "shared_costs": {"a": {"seconds": 1}}},
    ),
    (
        r"shared part 'a' has costs in hours: expected cost, as of the members",
        {"shared_costs": {"a": {"hours": 1}}},
    ),
]


@pytest.mark.parametrize(("message", "changes"), CASES)
def test_invalid_parts_raise_one_line(message: str, changes: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {
        "costs": [1, 2, 3],
        "budget": 9,
        "names": ["ann", "bob", "cid"],
        "shared": ["a", "a", ""],
        "shared_costs": {"a": 1},
    } | changes
    bounds = {"budgets": [arguments["budget"]]}
    with pytest.raises(SelectionError, match=message) as raised:
        select_members(TRUTH, **arguments)
    assert "\n" not in str(raised.value)
    with pytest.raises(SelectionError, match=message):
        front(TRUTH, **{k: v for k, v in arguments.items() if k != "budget"}, **bounds)
