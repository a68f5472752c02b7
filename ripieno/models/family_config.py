"""Hyperparameters and defaults of optimisation of the built-in families, by the name of the family. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from ripieno.models import resnet_config, series_config, timm_config
from ripieno.types import Configuration, Value


def hyperparameter_names(family: str) -> frozenset[str]:
    """Return the hyperparameters of a built-in family's networks; those of their training are not among them."""
    if timm_config.is_timm(family):
        return timm_config.NAMES
    return series_config.NAMES if series_config.is_series_family(family) else resnet_config.NAMES


def training_defaults(family: str) -> Mapping[str, Value]:
    """Return the defaults of the optimisation of `family` that differ from `OptimizerConfig`."""
    if timm_config.is_timm(family):
        return timm_config.TRAINING_DEFAULTS
    return series_config.TRAINING_DEFAULTS if series_config.is_series_family(family) else {}


def member_family(family: str, configuration: Configuration) -> str:
    """Return the family of a member of a search.

    Of `timm` it is `timm:NAME`, of `series` the network; `configuration` names both.
    """
    if family == timm_config.FAMILY:
        return timm_config.PREFIX + timm_config.backbone_config(family, configuration).backbone
    if family == series_config.FAMILY:
        return series_config.series_config(family, configuration).network
    return family
