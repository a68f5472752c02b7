"""Networks that a space chooses from, fitted to the time of a search without a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from statistics import median

from ripieno.pipeline.timm_space import TRIAL_SHARE
from ripieno.pipeline.trial_packing_benchmark import sample_configurations
from ripieno.search.space import Categorical, Space
from ripieno.types import Configuration

DRAWN = 32
"""Configurations of which the median cost of a network is taken."""


def fit_networks(
    space: Space, cost: Callable[[Configuration], float], models: int, epochs: int, seconds: float
) -> tuple[Space, str]:
    """Return `space` without the values of `network` that are too slow for a search, and a remark, empty without any.

    `cost` estimates the milliseconds of an epoch of a configuration by one core; a trial trains `models` networks. In
    the median, a trial of `epochs` takes at most `TRIAL_SHARE` of the `seconds` of all cores. The quickest network
    stays.
    """
    choice = space.ranges.get("network")
    if not isinstance(choice, Categorical):
        return space, ""
    drawn = sample_configurations(space, 0, DRAWN)
    took = {
        name: epochs * models * median(cost({**configuration, "network": name}) for configuration in drawn) / 1000
        for name in map(str, choice.choices)
    }
    kept = [n for n, t in took.items() if t <= TRIAL_SHARE * seconds] or [min(took, key=lambda name: took[name])]
    if len(kept) == len(took):
        return space, ""
    left_out = ", ".join(name for name in took if name not in kept)
    ranges = {**space.ranges, "network": Categorical(tuple(kept))}
    remark = f"left out as too slow for {seconds / 60:.0f} minutes of a core: {left_out}; give more --hours"
    return dataclasses.replace(space, ranges=ranges), remark
