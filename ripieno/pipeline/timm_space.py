"""Spaces of networks of timm: their backbones and resolutions, checked before a search begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from statistics import median

from ripieno.errors import ModelError, SearchError
from ripieno.models.backbone_id import split_stem
from ripieno.models.timm_config import FAMILY, NAMES, PREFIX, backbone_config
from ripieno.models.timm_network import (
    backbone_megaflops,
    check_name,
    has_fixed_resolution,
    native_resolution,
    timm_megaflops,
)
from ripieno.models.torchvision_import import import_timm
from ripieno.search.built_in_spaces import is_built_in_space
from ripieno.search.space import Categorical, Space, backbone_names
from ripieno.train.network_trainer import check_hyperparameters
from ripieno.types import Configuration, Dataset

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


def family_of_weights(weights: str | Path) -> str:
    """Return the family that pretrained `weights` are for: `timm:NAME` of one file NAME.safetensors, else `timm`.

    `weights` are a file, a folder of files, or `hub`. NAME is of a network of timm.
    """
    path = Path(weights)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    is_one = len(files) == 1 and import_timm().is_model(files[0].stem.partition(".")[0])
    return PREFIX + files[0].stem if is_one else FAMILY


def fit_resolution(space: Space) -> Space:
    """Return a built-in `space` of one backbone with the backbone's resolution, if it takes no other.

    Raises ModelError for an unknown backbone.
    """
    names = backbone_names(space)
    if len(names) != 1 or not is_built_in_space(space) or not has_fixed_resolution(names[0]):
        return space
    ranges = {name: choice for name, choice in space.ranges.items() if name != "resolution"}
    fixed = {**space.fixed, "resolution": native_resolution(names[0])}
    return dataclasses.replace(space, ranges=ranges, fixed=fixed)


def check_backbones(space: Space) -> None:
    """Raise SearchError, in one line, for a backbone that timm has not or that cannot take images of a resolution.

    The same for an unknown hyperparameter, and a fixed value out of range. Backbones of a built-in space take all its
    resolutions.
    """
    names = backbone_names(space)
    if not names:
        raise SearchError(f"space {space.name} names no backbone: add it as a categorical range or a fixed value")
    try:
        check_hyperparameters(space.family, dict.fromkeys((*space.ranges, *space.fixed), 0))
        for name in names:
            check_name(name)
            fixed = {key: value for key, value in space.fixed.items() if key in NAMES}
            config = backbone_config(f"{PREFIX}{name}", {**fixed, "backbone": name})
            if not (len(names) > 1 and is_built_in_space(space)):
                for side in _resolutions(space) or [config.resolution or native_resolution(name)]:
                    backbone_megaflops(name, side)
    except ModelError as error:
        raise SearchError(f"space {space.name}: {error}") from error


def cheapest_backbone(space: Space, weights: Collection[str]) -> Configuration | None:
    """Return the backbone of `space` with fewest operations of those with `weights` (`NAME-DIGEST`), and a resolution.

    The resolution is the middle one of the space. None where no backbone with weights takes it.
    """
    sides = sorted(set(_resolutions(space)))
    costs: dict[tuple[str, int], float] = {}
    for name in sorted(split_stem(stem)[0] for stem in weights):
        fixed = int(space.fixed.get("resolution", 0)) or native_resolution(name)
        side = sides[(len(sides) - 1) // 2] if sides else fixed
        with suppress(ModelError):  # a backbone of another fixed resolution
            costs[name, side] = backbone_megaflops(name, side)
    if not costs:
        return None
    name, side = min(costs, key=lambda found: costs[found])
    return {"backbone": name, "resolution": side, "frozen": "all"}


def feature_seconds(configuration: Configuration, dataset: Dataset) -> float:
    """Estimate the seconds that a core takes to compute the features of the train and validation splits."""
    samples = len(dataset.inputs) - len(dataset.rows("test"))
    return samples * timm_megaflops(FAMILY, configuration) / RATE


def fit_time(space: Space, dataset: Dataset, seconds: float) -> tuple[Space, str]:
    """Return `space` without the backbones and resolutions that are too slow for a search, and a remark on them.

    The features by all backbones at all resolutions take at most `SHARE` of the `seconds` of all cores: what saves
    most is left out first, and one backbone at one resolution stays. The remark is empty where all stay.
    """
    names, sides = list(backbone_names(space)), sorted(set(_resolutions(space)))
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
    remark = f"left out as too slow for {seconds / 60:.0f} minutes of a core: {', '.join(left_out)}; give more --hours"
    return dataclasses.replace(space, ranges=ranges), remark


def fit_epochs(space: Space, dataset: Dataset, seconds: float, epochs: int) -> tuple[int, str]:
    """Return the maximum number of epochs of a search, `epochs` or fewer, and a remark on it, empty where it stays.

    A trial of as many, of the whole network, takes at most `TRIAL_SHARE` of the `seconds` of all cores, in the median
    over the backbones of `space` at its largest resolution. Longer trials would be cut off by the end of the search.
    With folds, a trial trains one network more than there are folds.
    """
    side = max(_resolutions(space), default=0)
    at = {"resolution": side} if side else {}
    passes = [timm_megaflops(FAMILY, {"backbone": name, **at}) / RATE for name in backbone_names(space)]
    epoch = PASSES * median(passes) * len(dataset.rows("train")) * (dataset.fold_count + 1)
    fitted = max(LEAST_EPOCHS, int(TRIAL_SHARE * seconds / epoch))
    if fitted >= epochs:
        return epochs, ""
    return fitted, f"trials have at most {fitted} epochs, which fit in the time; give more --hours, or --epochs"


def _resolutions(space: Space) -> list[int]:
    """Return the resolutions of `space`, of a range its ends; none where it has no range of them."""
    choice = space.ranges.get("resolution")
    if choice is None:
        return []
    values = choice.choices if isinstance(choice, Categorical) else (choice.low, choice.high)
    return [backbone_config(PREFIX + "any", {"resolution": value}).resolution for value in values]
