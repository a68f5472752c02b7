"""Spaces of networks of timm: their backbones and resolutions, checked before a search begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ripieno.errors import ModelError, SearchError
from ripieno.models import smp_config
from ripieno.models.backbone_id import split_stem
from ripieno.models.timm_config import FAMILY, NAMES, PREFIX, backbone_config
from ripieno.models.timm_network import (
    backbone_megaflops,
    check_name,
    has_fixed_resolution,
    native_resolution,
)
from ripieno.models.torchvision_import import import_timm
from ripieno.search.built_in_spaces import is_built_in_space
from ripieno.search.space import Categorical, Space, backbone_names
from ripieno.train.network_trainer import check_hyperparameters
from ripieno.types import Configuration


def family_of_weights(weights: str | Path, is_pixelwise: bool = False) -> str:
    """Return the family that pretrained `weights` are for: `timm:NAME` of one file NAME.safetensors, else `timm`.

    `weights` are a file, a folder of files, or `hub`. NAME is of a network of timm. The family is `smp` where each
    pixel gets a prediction.
    """
    if is_pixelwise:
        return smp_config.FAMILY
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
                for side in resolutions(space) or [config.resolution or native_resolution(name)]:
                    backbone_megaflops(name, side)
    except ModelError as error:
        raise SearchError(f"space {space.name}: {error}") from error


def cheapest_backbone(space: Space, weights: Collection[str]) -> Configuration | None:
    """Return the backbone of `space` with fewest operations of those with `weights` (`NAME-DIGEST`), and a resolution.

    The resolution is the middle one of the space. None where no backbone with weights takes it.
    """
    sides = sorted(set(resolutions(space)))
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


def resolutions(space: Space) -> list[int]:
    """Return the resolutions of `space`, of a range its ends; none where it has no range of them."""
    choice = space.ranges.get("resolution")
    if choice is None:
        return []
    values = choice.choices if isinstance(choice, Categorical) else (choice.low, choice.high)
    return [backbone_config(PREFIX + "any", {"resolution": value}).resolution for value in values]
