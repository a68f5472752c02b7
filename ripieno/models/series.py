"""Networks of series by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from ripieno.models.fcn import FullyConvolutional
from ripieno.models.hydra import Hydra
from ripieno.models.inception import Inception
from ripieno.models.lite import Lite
from ripieno.models.minirocket import MiniRocket
from ripieno.models.resnet_1d import SeriesResNet
from ripieno.models.series_config import SeriesConfig, series_config
from ripieno.types import Configuration, Input

BODIES: Mapping[str, Callable[[SeriesConfig, Input, int], nn.Module]] = {
    "lite": Lite,
    "inception": Inception,
    "resnet-1d": SeriesResNet,
    "fcn": FullyConvolutional,
    "minirocket": MiniRocket,
    "hydra": Hydra,
}
"""Bodies by the name of their network; each takes its hyperparameters, the form of the inputs, and the outputs."""


def series_network(configuration: Configuration, input: Input, outputs: int, family: str) -> nn.Module:
    """Build the network of `configuration`. Raises ModelError naming a bad value, and for inputs that are no series."""
    config = series_config(family, configuration)
    return BODIES[config.network](config, input, outputs)
