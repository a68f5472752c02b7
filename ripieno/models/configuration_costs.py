"""Costs of a network that follow from its configuration, before it is trained. Torch only for timm and smp."""

from __future__ import annotations

from math import prod

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
from ripieno.models.family_config import network_group, network_megaflops
from ripieno.tasks.registry import kind_of
from ripieno.types import Configuration, Input, Task

BYTES_PER_PARAMETER = 4
"""Bytes that a parameter is taken for before training; an exported file has its graph besides."""
KNOWN = ("parameters", "flops", "bytes")
"""Kinds of cost that are known before training, of the built-in families."""


def configuration_costs(family: str, configuration: Configuration, input: Input, task: Task) -> dict[str, float]:
    """Return `parameters`, `flops` (operations for one sample) and `bytes` of a configuration; nothing of user code.

    The costs are those of the member after its last epoch, as they are counted in its weights and in its exported
    file. Parameters are exact. So are FLOPs, but of networks of timm and smp, whose exporters write a few products
    more or less (within 2 % in tests). `bytes` is four times the parameters. A network of timm is counted whole, with
    its backbone. Raises ModelError for a bad configuration.
    """
    is_pixelwise = kind_of(task).is_pixelwise
    outputs = len(task.names) if is_pixelwise else prod(task.output)
    counted: tuple[int, float] | None
    if family == cell_config.FAMILY:
        counted = cell_plan.cell_counts(configuration, input, outputs, is_pixelwise=is_pixelwise)
    else:
        counted = _count(family, configuration, input, outputs)
    if counted is None:
        return {}
    parameters, megaflops = counted
    return {
        "parameters": float(parameters),
        "flops": 2.0 * round(megaflops * 1e6),
        "bytes": float(BYTES_PER_PARAMETER * parameters),
    }


def _count(family: str, configuration: Configuration, input: Input, outputs: int) -> tuple[int, float] | None:
    """Return the parameters, and the multiply-adds in millions with those of the head; None of user code."""
    if timm_config.is_timm(family):
        from ripieno.models.timm_network import timm_counts

        return timm_counts(family, configuration, input, outputs)
    if smp_config.is_smp(family):
        from ripieno.models.smp_network import smp_counts

        return smp_counts(family, configuration, input, outputs)
    if family == unet_config.FAMILY:
        parameters = unet_config.unet_parameters(configuration, input, outputs)
        return parameters, unet_config.unet_megaflops(configuration, input, outputs)
    if network_group(family) == series_config.FAMILY:
        parameters = series_config.series_parameters(family, configuration, input, outputs)
        features = series_config.series_features(family, configuration, input)
    elif network_group(family) == table_config.FAMILY:
        parameters = table_config.table_parameters(family, configuration, input, outputs)
        features = table_config.table_config(family, configuration).units
    elif family == "resnet":
        parameters = resnet_config.resnet_parameters(configuration, input, outputs)
        features = resnet_config.last_features(configuration)
    else:
        return None
    return parameters, network_megaflops(family, configuration, input) + features * outputs / 1e6
