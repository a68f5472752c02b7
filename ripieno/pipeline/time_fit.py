"""Spaces and epochs fitted to the time of a search without a GPU: what is too slow for it is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from statistics import median

from ripieno.models.smp_config import is_smp
from ripieno.models.timm_config import FAMILY, is_timm
from ripieno.models.timm_network import timm_megaflops
from ripieno.pipeline.timm_space import resolutions
from ripieno.pipeline.trial_packing_benchmark import sample_configurations
from ripieno.search.space import Categorical, Space, backbone_names
from ripieno.types import Configuration, Dataset, Value

RATE = 8000.0
"""Millions of multiply-adds of a backbone that a core does in a second, about."""
SHARE = 0.15
"""Largest share of a search's time for the features by all its backbones at all its resolutions."""
TRIAL_SHARE = 1 / 3
"""Largest share of a search's time for a trial of the maximum number of epochs."""
PASSES = 3
"""What an epoch of a whole network takes, forward and backward, in passes forward."""
LEAST_EPOCHS = 4
"""Smallest maximum number of epochs: the first fits a head, and the next one or two are no better than it."""
DRAWN = 32
"""Configurations of which the median cost of a network is taken."""
_MIDDLE: Configuration = {"architecture": "Unet", "decoder_width": 0.5}
"""Values of networks of smp by which encoders are compared."""


def fit_to_time(
    space: Space,
    epochs: int,
    dataset: Dataset,
    cost: Callable[[Configuration], float],
    seconds: float,
    *,
    pretrained: bool,
    epochs_given: bool,
) -> tuple[Space, int, list[str]]:
    """Return `space` and the maximum number of `epochs`, fitted to the `seconds` of all cores, and remarks on it.

    `cost` estimates the milliseconds of an epoch of a configuration by one core. Backbones and epochs are fitted where
    networks of timm are `pretrained`, epochs only unless the user has given them.
    """
    space, *remarks = fit_networks(space, cost, dataset.fold_count + 1, epochs, seconds)
    pretrained = pretrained and is_timm(space.family)
    if pretrained:
        space, remark = fit_backbones(space, dataset, seconds)
        remarks.append(remark)
    if pretrained and not epochs_given:
        epochs, remark = fit_epochs(space, dataset, seconds, epochs)
        remarks.append(remark)
    return space, epochs, [remark for remark in remarks if remark]


def fit_networks(
    space: Space, cost: Callable[[Configuration], float], models: int, epochs: int, seconds: float
) -> tuple[Space, str]:
    """Return `space` without the values that are too slow for a search, and a remark, empty without any.

    They are values of `network`, of the encoder of networks of smp, or of `stem_stride`. A trial trains `models`
    networks. In the median, a trial of `epochs` takes at most `TRIAL_SHARE` of the `seconds` of all cores. The quickest
    value stays.
    """
    names = ("network", "backbone", "stem_stride") if not is_timm(space.family) else ()
    name, choice = next(((n, c) for n in names if isinstance(c := space.ranges.get(n), Categorical)), ("", None))
    if not isinstance(choice, Categorical):
        return space, ""
    drawn: list[Configuration] = sample_configurations(space, 0, DRAWN)
    if is_smp(space.family):  # a count takes a network's construction, so one an encoder
        drawn = [{**drawn[0], **{n: value for n, value in _MIDDLE.items() if n in space.ranges}}]
    took: dict[Value, float] = {
        value: epochs * models * median(cost({**configuration, name: value}) for configuration in drawn) / 1000
        for value in choice.choices
    }
    kept = [n for n, t in took.items() if t <= TRIAL_SHARE * seconds] or [min(took, key=lambda value: took[value])]
    if len(kept) == len(took):
        return space, ""
    ranges = {**space.ranges, name: Categorical(tuple(kept))}
    left_out = [f"{name} {v}" if name == "stem_stride" else str(v) for v in took if v not in kept]
    return dataclasses.replace(space, ranges=ranges), _too_slow(left_out, seconds)


def fit_backbones(space: Space, dataset: Dataset, seconds: float) -> tuple[Space, str]:
    """Return `space` without the backbones and resolutions that are too slow for a search, and a remark on them.

    The features by all backbones at all resolutions take at most `SHARE` of the `seconds` of all cores: what saves
    most is left out first, and one backbone at one resolution stays. The remark is empty where all stay.
    """
    names, sides = list(backbone_names(space)), sorted(set(resolutions(space)))
    if not sides:  # one backbone that takes one resolution only
        return space, ""
    # a count of operations takes a network's construction, so one a backbone, scaled by the area
    largest = {name: feature_seconds({"backbone": name, "resolution": sides[-1]}, dataset) for name in names}
    cost = {(name, side): took * (side / sides[-1]) ** 2 for name, took in largest.items() for side in sides}
    left_out: list[str] = []
    while sum(cost.values()) > SHARE * seconds and len(cost) > 1:
        several = [v for values in (names, sides) if len(values) > 1 for v in values]
        slowest = max(several, key=lambda v: sum(took for pair, took in cost.items() if v in pair))
        cost = {pair: took for pair, took in cost.items() if slowest not in pair}
        names, sides = [n for n in names if n != slowest], [s for s in sides if s != slowest]
        left_out.append(f"{slowest} pixels" if isinstance(slowest, int) else slowest)
    if not left_out:
        return space, ""
    ranges = {**space.ranges, "resolution": Categorical(tuple(sides))}
    if "backbone" in ranges:
        ranges["backbone"] = Categorical(tuple(names))
    return dataclasses.replace(space, ranges=ranges), _too_slow(left_out, seconds)


def fit_epochs(space: Space, dataset: Dataset, seconds: float, epochs: int) -> tuple[int, str]:
    """Return the maximum number of epochs of a search, `epochs` or fewer, and a remark on it, empty where it stays.

    A trial of as many, of the whole network, takes at most `TRIAL_SHARE` of the `seconds` of all cores, in the median
    over the backbones of `space` at its largest resolution. Longer trials would be cut off by the end of the search.
    With folds, a trial trains one network more than there are folds.
    """
    side = max(resolutions(space), default=0)
    at = {"resolution": side} if side else {}
    passes = [timm_megaflops(FAMILY, {"backbone": name, **at}) / RATE for name in backbone_names(space)]
    epoch = PASSES * median(passes) * len(dataset.rows("train")) * (dataset.fold_count + 1)
    fitted = max(LEAST_EPOCHS, int(TRIAL_SHARE * seconds / epoch))
    if fitted >= epochs:
        return epochs, ""
    return fitted, f"trials have at most {fitted} epochs, which fit in the time; give more --hours, or --epochs"


def feature_seconds(configuration: Configuration, dataset: Dataset) -> float:
    """Estimate the seconds that a core takes to compute the features of the train and validation splits."""
    samples = len(dataset.inputs) - len(dataset.rows("test"))
    return samples * timm_megaflops(FAMILY, configuration) / RATE


def _too_slow(left_out: list[str], seconds: float) -> str:
    return f"left out as too slow for {seconds / 60:.0f} minutes of a core: {', '.join(left_out)}; give more --hours"
