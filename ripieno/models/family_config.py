"""Hyperparameters, cost and defaults of optimisation of the built-in families, by the name of the family. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from ripieno.data_kinds import DATA_KINDS
from ripieno.models import (
    cell_config,
    cell_plan,
    resnet_config,
    series_config,
    smp_config,
    table_config,
    timm_config,
    unet_config,
)
from ripieno.tasks.registry import kind_of
from ripieno.types import Configuration, DataKind, Input, Task, Value

_CONFIGS = {"image": resnet_config, "series": series_config, "table": table_config}

PIXEL_FAMILIES = (unet_config.FAMILY, smp_config.FAMILY)
"""Built-in families that predict every pixel of an image; the others predict a sample as a whole, `cell` either."""


def can_predict(family: str, *, is_pixelwise: bool) -> bool:
    """Return whether a built-in family predicts every pixel, or else a sample as a whole."""
    return family == cell_config.FAMILY or (family in PIXEL_FAMILIES) == is_pixelwise


def fitting_families(kind: DataKind, task: Task) -> tuple[str, ...]:
    """Return the built-in families of networks that take data of `kind` and predict what `task` asks for."""
    is_pixelwise = kind_of(task).is_pixelwise
    return tuple(family for family in DATA_KINDS[kind].families if can_predict(family, is_pixelwise=is_pixelwise))


def family_kind(family: str) -> DataKind:
    """Return the kind of data that a built-in family takes; `image` of `cell`, which takes two, and the user's own."""
    return next((kind for kind, traits in DATA_KINDS.items() if family in traits.families), "image")


def network_group(family: str) -> str | None:
    """Return the family whose configurations name `family` as their network: `series` or `table`; None: no other."""
    return next((c.FAMILY for c in (series_config, table_config) if family in (c.FAMILY, *c.NETWORKS)), None)


def hyperparameter_names(family: str) -> frozenset[str]:
    """Return the hyperparameters of a built-in family's networks; those of their training are not among them."""
    if timm_config.is_timm(family):
        return timm_config.NAMES
    if smp_config.is_smp(family):
        return smp_config.NAMES
    if family == cell_config.FAMILY:
        return cell_config.NAMES
    return unet_config.NAMES if family == unet_config.FAMILY else _CONFIGS[family_kind(family)].NAMES


def training_defaults(family: str) -> Mapping[str, Value]:
    """Return the defaults of the optimisation of `family` that differ from `OptimizerConfig`."""
    if timm_config.is_timm(family):
        return timm_config.TRAINING_DEFAULTS
    if smp_config.is_smp(family):
        return smp_config.TRAINING_DEFAULTS
    defaults = {"series": series_config.TRAINING_DEFAULTS, "table": table_config.TRAINING_DEFAULTS}
    return defaults.get(family_kind(family), {})


def network_megaflops(family: str, configuration: Configuration, input: Input) -> float:
    """Count the multiply-adds of one sample in millions; 0 where the family is of timm or smp, or the user's own.

    Raises ModelError for a bad configuration.
    """
    group = network_group(family)
    if group == series_config.FAMILY:
        return series_config.series_megaflops(family, configuration, input)
    if group == table_config.FAMILY:
        return table_config.table_megaflops(family, configuration, input)
    if family == unet_config.FAMILY:
        return unet_config.unet_megaflops(configuration, input)
    if family == cell_config.FAMILY:
        return cell_plan.cell_counts(configuration, input, 0, is_pixelwise=_is_segmentation(configuration))[1]
    return resnet_config.megaflops(configuration, input) if family == "resnet" else 0.0


def network_megavalues(family: str, configuration: Configuration, input: Input) -> float:
    """Count the values of all maps of one sample in millions; 0 for families other than `resnet` and `cell`."""
    if family == cell_config.FAMILY:
        return cell_plan.cell_megavalues(configuration, input, is_pixelwise=_is_segmentation(configuration))
    return resnet_config.megavalues(configuration, input) if family == "resnet" else 0.0


def _is_segmentation(configuration: Configuration) -> bool:
    """Return whether a configuration of a network of cells has a hyperparameter of segmentations only."""
    return "stem_stride" in configuration


def member_family(family: str, configuration: Configuration) -> str:
    """Return the family of a member of a search.

    Of `timm` it is `timm:NAME`, of `smp` `smp:ARCHITECTURE/ENCODER`, of `series` and `table` the network;
    `configuration` names it.
    """
    if family == smp_config.FAMILY:
        return smp_config.smp_family(smp_config.smp_config(family, configuration))
    if family == timm_config.FAMILY:
        return timm_config.PREFIX + timm_config.backbone_config(family, configuration).backbone
    if family == series_config.FAMILY:
        return series_config.series_config(family, configuration).network
    if family == table_config.FAMILY:
        return table_config.table_config(family, configuration).network
    return family
