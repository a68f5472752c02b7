"""Networks of series by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from ripieno.errors import ModelError
from ripieno.models.fcn import FullyConvolutional
from ripieno.models.series_config import SeriesConfig, series_config
from ripieno.types import Configuration, Input

BODIES: Mapping[str, Callable[[SeriesConfig, Input, int], nn.Module]] = {"fcn": FullyConvolutional}
"""Bodies by the name of their network; each takes its hyperparameters, the form of the inputs, and the outputs."""


def series_network(configuration: Configuration, input: Input, outputs: int, family: str) -> nn.Module:
    """Build the network of `configuration`. Raises ModelError naming a bad value, and for inputs that are no series."""
    config = series_config(family, configuration)
    if config.network not in BODIES:
        raise ModelError(f"network {config.network} is not available yet; there are: {', '.join(BODIES)}")
    return BODIES[config.network](config, input, outputs)
