"""Budget of a search: what is left out before training, what a small budget does to a space, and what is said."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from ripieno.errors import SearchError, SelectionError
from ripieno.models.configuration_costs import configuration_costs
from ripieno.pipeline.budgets import plain_budget
from ripieno.pipeline.cost_samples import CostRecord
from ripieno.pipeline.search_budget import (
    budget_share,
    describe_budget,
    find_cheapest,
    known_costs,
    largest_costs,
    plan_budget,
    read_budget,
)
from ripieno.pipeline.trial_packing_benchmark import sample_configurations
from ripieno.profiles.cost_model import CostModel
from ripieno.search.built_in_spaces import find_space
from ripieno.search.space import Continuous
from ripieno.types import Input, classification

SPACE = find_space("resnet-small")
INPUT, TASK = Input((28, 28, 1), "uint8"), classification(tuple("abcdefghij"))
NONE = CostRecord("", {})
COSTS = partial(configuration_costs, "resnet", input=INPUT, task=TASK)


def model(error: float, slope: float = 1.0, intercept: float = 0.0) -> CostModel:
    """Return a model of a cost that grows as the FLOPs, of one at a million of them if `intercept` is 0."""
    return CostModel(("log flops",), (13.815510557964274,), (slope,), intercept, error, 12)


def record(**models: CostModel) -> CostRecord:
    return CostRecord("a-cpu", models)


def plan(budget: dict[str, float], models: CostRecord = NONE, **changed: Any) -> Any:
    options = {"is_network": True, "may_narrow": True} | changed
    return plan_budget(budget, SPACE, INPUT, TASK, 0, lambda: models, **options)


def test_a_number_is_of_seconds_and_a_mapping_of_kinds() -> None:
    assert read_budget(None) == {}
    assert read_budget(5) == {"seconds": 5.0}
    assert read_budget({"seconds": 20, "bytes": 4e6}) == {"seconds": 20.0, "bytes": 4e6}
    assert plain_budget({"seconds": 5.0}) == 5.0
    assert plain_budget({"flops": 5.0}) == {"flops": 5.0}
    for wrong in (0, -1, float("nan"), {}):
        with pytest.raises(SelectionError, match="not valid"):
            read_budget(wrong)
    with pytest.raises(
        SearchError, match="'euros': the budget of a search may bound seconds, memory, latency, joules, para"
    ):
        read_budget({"euros": 3})


def test_what_is_known_bounds_exactly_and_what_is_predicted_at_twice_the_budget() -> None:
    found = largest_costs({"flops": 3e6, "bytes": 1e6, "seconds": 2.0}, {"flops": 1.0, "bytes": 1.0}, NONE)
    assert found == {"flops": 3e6, "bytes": 1e6}
    found = largest_costs({"flops": 3e6, "seconds": 2.0}, {"flops": 1.0}, record(seconds=model(1.3)))
    assert found == {"flops": 3e6, "seconds": 4.0}
    assert largest_costs({"seconds": 2.0}, {}, record(seconds=model(1.3), memory=model(1.1))) == {"seconds": 4.0}


def test_a_prediction_off_by_more_than_twice_bounds_nothing() -> None:
    assert largest_costs({"seconds": 2.0}, {}, record(seconds=model(2.1))) == {}
    (note,) = describe_budget({"seconds": 2.0}, {}, record(seconds=model(2.13)))
    assert note.startswith("no network is left out for its seconds, predicted only within a factor of 2.1 before")


def test_costs_are_exact_and_predicted() -> None:
    chosen = sample_configurations(SPACE, 0, 1)[0]
    exact = COSTS(chosen)
    costs = known_costs("resnet", INPUT, TASK, record(seconds=model(1.1, intercept=0.0)))(chosen)
    assert costs == exact | {"seconds": pytest.approx(exact["flops"] / 1e6)}
    share = budget_share(known_costs("resnet", INPUT, TASK, NONE), {"flops": exact["flops"], "bytes": 1.0})
    assert share(chosen) == exact["bytes"]


def test_a_budget_that_many_fit_leaves_the_space_and_says_what_bounds() -> None:
    found = plan({"flops": 2e7})
    assert found.space == SPACE
    assert found.bounds == {"flops": 2e7}
    assert found.notes == ("networks over the budget of 2e+07 flops are not trained",)
    found = plan({"seconds": 10.0}, record(seconds=model(1.27)))
    assert found.space == SPACE
    assert found.bounds == {"seconds": 20.0}
    assert found.notes == (
        "networks predicted above 20 seconds, twice the budget, are not trained: predicted from 12 networks on a-cpu, "
        "typically off by a factor of 1.27",
    )


def test_a_note_says_that_the_machine_was_busy() -> None:
    busy = CostRecord("a-cpu", {"seconds": model(1.27)}, idle=False)
    (note,) = describe_budget({"seconds": 10.0}, {"seconds": 20.0}, busy)
    assert note.endswith("off by a factor of 1.27, and measured while the machine was busy")


def test_a_budget_far_above_all_networks_is_not_worth_a_word() -> None:
    assert plan({"parameters": 1e15}).notes == ()
    assert plan({"parameters": 1e15}).bounds == {"parameters": 1e15}


def test_a_budget_that_few_fit_narrows_the_space() -> None:
    few = {"flops": 3.2e6}  # the cheapest costs 2.7e6
    found = plan(few)
    assert found.space != SPACE
    assert found.space.name == SPACE.name
    drawn, wide = (sample_configurations(space, 5, 60) for space in (found.space, SPACE))
    assert sum(COSTS(c)["flops"] <= 3.2e6 for c in drawn) > 6
    assert sum(COSTS(c)["flops"] <= 3.2e6 for c in wide) < 3
    assert found.notes[1].startswith("few networks of the space fit the budget, so the search has ")
    own = plan(few, may_narrow=False)  # of a user's file, or of a resumed search
    assert (own.space, own.bounds, len(own.notes)) == (SPACE, few, 1)
    with pytest.raises(SearchError, match="fits the budget"):
        plan({"flops": 1000.0}, may_narrow=False)


def test_a_budget_that_none_fits_is_refused_with_the_cheapest_costs() -> None:
    with pytest.raises(
        SearchError, match=r"^no network of space resnet-small fits the budget of 1000 flops: the "
    ) as e:
        plan({"flops": 1000.0})
    corner = {**SPACE.fixed, "convolution": "next", "stem_filters": 8, "width": 6}
    corner |= {f"blocks_{n}": 1 for n in range(1, 5)}
    assert f"the cheapest costs {COSTS(corner)['flops']:.3g} flops; give a larger --budget" in str(e.value)
    assert "\n" not in str(e.value)


def test_several_kinds_bound_at_once() -> None:
    found = plan({"flops": 2e7, "seconds": 4.0}, record(seconds=model(1.2)))
    assert found.bounds == {"flops": 2e7, "seconds": 8.0}
    drawn = sample_configurations(SPACE, 1, 50)
    share = budget_share(found.costs, found.bounds)
    for one in drawn:
        flops = COSTS(one)["flops"]
        assert (share(one) <= 1) == (flops <= 2e7 and flops / 1e6 <= 8.0)


def test_a_trainer_of_which_nothing_is_known_gets_one_note() -> None:
    def never() -> CostRecord:
        raise AssertionError("nothing is measured for it")

    found = plan_budget({"seconds": 5.0, "flops": 1e6}, SPACE, INPUT, TASK, 0, never, is_network=False, may_narrow=True)
    assert (found.space, found.bounds) == (SPACE, {})
    assert found.notes == (
        "no network is left out for its seconds and flops, not known before training: `select` bounds what is measured",
    )
    assert plan({"flops": 2e7}, record()).bounds  # nothing is measured for what is known
    with pytest.raises(AssertionError):
        plan_budget({"seconds": 5.0}, SPACE, INPUT, TASK, 0, never, is_network=True, may_narrow=True)


def test_the_cheapest_is_found_by_one_value_at_a_time() -> None:
    start = sample_configurations(SPACE, 3, 1)[0]
    cheapest = find_cheapest(SPACE, lambda c: COSTS(c)["parameters"], start)
    assert [cheapest[f"blocks_{n}"] for n in range(1, 5)] == [1, 1, 1, 1]
    assert (cheapest["width"], cheapest["stem_filters"]) == (6, 8)
    assert isinstance(SPACE.ranges["learning_rate"], Continuous)
    assert cheapest["learning_rate"] == start["learning_rate"]  # it costs nothing
