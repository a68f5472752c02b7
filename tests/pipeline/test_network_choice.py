"""Networks that a search without a GPU leaves out because of its time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ripieno.pipeline.network_choice import fit_networks
from ripieno.pipeline.tuning import estimate_epoch_cost
from ripieno.search.built_in_spaces import find_space
from ripieno.search.space import Categorical, fix_network
from ripieno.types import Input

SPACE = find_space("series")
COST = partial(estimate_epoch_cost, "series", Input((427, 1), "float32"), 200)


def networks_within(seconds: float, models: int = 1) -> tuple[str, ...]:
    found, _ = fit_networks(SPACE, COST, models, 27, seconds)
    choice = found.ranges["network"]
    assert isinstance(choice, Categorical)
    assert found == replace(SPACE, ranges={**SPACE.ranges, "network": choice})
    return tuple(map(str, choice.choices))


def test_networks_that_take_most_of_the_time_are_left_out() -> None:
    assert networks_within(1e9) == ("lite", "inception", "resnet-1d", "fcn", "minirocket", "hydra")
    assert networks_within(1e-9) in (("minirocket",), ("hydra",))
    assert set(networks_within(600)) == {"lite", "inception", "fcn", "minirocket", "hydra"}


def test_each_fold_trains_a_network() -> None:
    assert networks_within(1200, models=6) == networks_within(200) == ("lite", "minirocket", "hydra")


def test_the_remark_names_what_is_left_out() -> None:
    _, remark = fit_networks(SPACE, COST, 1, 27, 600)
    assert remark == "left out as too slow for 10 minutes of a core: resnet-1d; give more --hours"
    assert fit_networks(SPACE, COST, 1, 27, 1e9) == (SPACE, "")


def test_a_space_of_one_network_stays() -> None:
    one = fix_network(SPACE, "inception")
    assert fit_networks(one, COST, 1, 27, 1e-9) == (one, "")
