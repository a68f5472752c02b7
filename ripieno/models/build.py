"""Construction of networks by family: built-in ones, `timm:NAME`, or a user's own `module:function`.

A family's function takes (configuration, input, outputs) and returns a module from normalised float32 inputs, channels
first, to (batch, outputs): logits of classes or labels, or standardised values. Images are NCHW, series (batch,
channels, length) with NaN as padding, rows of tables (batch, values) with NaN where one is missing. Networks for
segmentation give logits (batch, classes, height, width), and `outputs` is the number of classes. `build` wraps the
module into `Network`, which takes inputs in the data set's form and gives outputs in the task's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from ripieno.errors import ModelError, RipienoError, error_summary
from ripieno.models import cell_config, series_config, smp_config, table_config, unet_config
from ripieno.models.activations import ACTIVATIONS
from ripieno.models.cell import cell_network, cell_pixel_network
from ripieno.models.family_config import can_predict, fitting_families
from ripieno.models.resnet import resnet
from ripieno.models.series import series_network
from ripieno.models.smp_config import is_smp
from ripieno.models.smp_network import SmpBody, smp_network
from ripieno.models.table import TableNetwork, table_network
from ripieno.models.timm_config import FAMILY, PREFIX, is_timm
from ripieno.models.timm_network import TimmBody, timm_network
from ripieno.models.unet import unet
from ripieno.models.user_code import import_named, is_user_code
from ripieno.tasks.registry import kind_of
from ripieno.types import Configuration, Float32s, Input, Task

Family = Callable[[Configuration, Input, int], nn.Module]
FAMILIES: dict[str, Family] = {
    "resnet": resnet,
    unet_config.FAMILY: unet,
    cell_config.FAMILY: cell_network,
    **{name: partial(series_network, family=name) for name in (series_config.FAMILY, *series_config.NETWORKS)},
    **{name: partial(table_network, family=name) for name in (table_config.FAMILY, *table_config.NETWORKS)},
}
"""The built-in families, besides `timm:NAME` and `smp:ARCHITECTURE/ENCODER`."""


class Network(nn.Module):
    """A family's module in the form of a data set: inputs (batch, *shape), channels last, to outputs (batch, *output).

    `mean` and `std` (channels,), in the unit of the inputs, are buffers: they are saved with the weights. So are those
    of the targets, `target_mean` and `target_std`, where outputs are values in the targets' unit: the module itself
    then gives standardised values. Other outputs are logits, which `activation` turns into probabilities.
    """

    mean: Tensor
    std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, body: nn.Module, task: Task, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body = body
        self.output = task.output
        self.activation = kind_of(task).activation
        self.is_pixelwise = kind_of(task).is_pixelwise
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        # a constant channel would divide by zero
        self.register_buffer("std", torch.tensor([s or 1.0 for s in std], dtype=torch.float32))
        self.standardised = self.activation == "identity"
        if self.standardised:
            self.register_buffer("target_mean", torch.zeros(task.output))
            self.register_buffer("target_std", torch.ones(task.output))

    def set_target_moments(self, mean: Float32s, std: Float32s) -> None:
        """Set the moments (*output) of the training split's targets, where outputs are values in their unit."""
        self.target_mean.copy_(torch.from_numpy(mean))
        self.target_std.copy_(torch.from_numpy(std))

    def normalise(self, inputs: Tensor) -> Tensor:
        """Normalise `inputs` (batch, *shape) into float32 with the channels first: images (batch, channels, ...)."""
        return channels_first((inputs.to(torch.float32) - self.mean) / self.std)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (batch, *output) of `inputs` (batch, *shape): logits, or values in the targets' unit."""
        return self._in_unit(self.body(self.normalise(inputs)))

    def predict(self, inputs: Tensor) -> Tensor:
        """Compute the predictions (batch, *output), float32, of `inputs` (batch, *shape)."""
        return self.activate(self(inputs))

    def activate(self, outputs: Tensor) -> Tensor:
        """Turn outputs (batch, *output) into predictions, float32."""
        return ACTIVATIONS[self.activation](outputs.float())

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Compute the features (batch, features), float32, of `inputs`, where the body is a head on a backbone."""
        features: Tensor = self.body.features(self.normalise(inputs))  # type: ignore[operator]
        return features.float()

    def forward_head(self, features: Tensor) -> Tensor:
        """Compute the outputs (batch, *output) of `features`, as `forward` those of inputs."""
        return self._in_unit(self.body.head(features))  # type: ignore[operator]

    def _in_unit(self, outputs: Tensor) -> Tensor:
        """Give outputs of the body the shape of the task, and the unit of its targets."""
        if self.is_pixelwise:
            return outputs.permute(0, 2, 3, 1)
        if len(self.output) > 1:
            outputs = outputs.reshape(-1, *self.output)
        if self.standardised:
            outputs = outputs * self.target_std + self.target_mean
        return outputs


def channels_first(inputs: Tensor) -> Tensor:
    """Return `inputs` (batch, ..., channels) with the channels after the batch, as a view; tables stay as they are.

    A view of NHWC as NCHW is channels-last: no copy. `movedim` is not used, because its trace is no valid ONNX graph.
    """
    last = inputs.ndim - 1
    return inputs.permute(0, last, *range(1, last))


def build(
    family: str,
    configuration: Configuration,
    input: Input,
    task: Task,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    trusted: Collection[str] = (),
) -> Network:
    """Build the network of `configuration` for `task`, from inputs (batch, *input.shape) of `input.dtype`.

    `family` is `resnet`, `unet`, `cell`, a network of series (or `series`, with its name in the configuration), of
    tables (or `table`) or of timm (`timm:NAME`, or `timm`), or `module:function`; the last is imported only when it is
    in `trusted`, the names that the user allows: a name read from a file is data, and importing it would run its code.
    `mean` and `std` are the data set's, per channel (default 0 and 1, which weights loaded later replace); a network of
    timm has its own instead, one of tables a preparation that is fitted to training rows: see `TableNetwork.fit`.
    Initial weights come from torch's generator.

    Raises ModelError for an unknown family or one that returns no such network, and for a bad configuration.
    """
    function = find_family(family, trusted)
    check_family(family, task)
    if family == cell_config.FAMILY and kind_of(task).is_pixelwise:
        function = cell_pixel_network
    channels, outputs = input.shape[-1], len(task.names) if kind_of(task).is_pixelwise else prod(task.output)
    try:
        body = function(configuration, input, outputs)
    except RipienoError:
        raise
    except Exception as error:  # a user's function may raise anything, usually for a missing name
        given = ", ".join(f"{name}={value}" for name, value in configuration.items()) or "no values"
        remedy = "name the values that it reads in the space, or with --configuration (configuration=) of import"
        line = error_summary(error, named=True)
        raise ModelError(f"family {family!r} cannot be built with {given} ({line}); {remedy}") from error
    if not isinstance(body, nn.Module):
        returned = type(body).__name__
        raise ModelError(f"family {family!r} returned a {returned}; its function must return a torch nn.Module")
    mean, std = mean or (0.0,) * channels, std or (1.0,) * channels
    if isinstance(body, TimmBody | SmpBody):
        mean, std = body.moments(input, mean, std)
    if isinstance(body, TableNetwork):
        mean, std = (0.0,) * channels, (1.0,) * channels
    network = Network(body, task, mean, std)
    if built_in_family(family) is None:
        _check(family, network, input, outputs)
    return network


def built_in_family(family: str) -> str | None:
    """Return the name of a built-in family; None of the user's own code.

    It is `timm` for `timm:NAME`, and `smp` for `smp:ARCHITECTURE/ENCODER`.
    """
    if is_smp(family):
        return smp_config.FAMILY
    return FAMILY if is_timm(family) else family if family in FAMILIES else None


def check_family(family: str, task: Task) -> None:
    """Raise ModelError when the predictions of a built-in family have another form than those of `task`."""
    base, is_pixelwise = built_in_family(family), kind_of(task).is_pixelwise
    if base is not None and not can_predict(base, is_pixelwise=is_pixelwise):
        predicts = "whole images, not pixels" if is_pixelwise else "pixels, not whole images"
        fitting = ", ".join(fitting_families("image", task))
        raise ModelError(f"family {family!r} predicts {predicts}, which task {task.kind} needs: use {fitting}")


def built_in_names() -> str:
    """Return the built-in families as messages name them."""
    return ", ".join((*FAMILIES, f"{PREFIX}NAME", f"{smp_config.PREFIX}ARCHITECTURE/ENCODER"))


def find_family(family: str, trusted: Collection[str] = ()) -> Family:
    """Return the function of a family. Raises ModelError when there is none, or it is not trusted."""
    if family in FAMILIES:
        return FAMILIES[family]
    if is_timm(family):
        return partial(timm_network, family=family)
    if is_smp(family):
        return partial(smp_network, family=family)
    if not is_user_code(family):
        raise ModelError(f"unknown family {family!r}; expected {built_in_names()}, or your own as module:function")
    expected = "a function of (configuration, input, outputs)"
    function = import_named("family", family, trusted, expected)
    if not callable(function):
        module_name, _, name = family.partition(":")
        raise ModelError(f"family {family!r}: {module_name}.{name} is not a function; expected {expected}")
    return cast(Family, function)


def _check(family: str, network: Network, input: Input, outputs: int) -> None:
    """Run two blank samples through a user's network, so that a wrong shape is reported here and not in training."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            blank = torch.zeros((2, *input.shape), dtype=getattr(torch, input.dtype))
            found = network.body(network.normalise(blank))
    except Exception as error:  # a user's network may raise anything
        line = error_summary(error, named=True)
        raise ModelError(f"family {family!r} cannot take inputs of shape {input.shape}: {line}") from error
    finally:
        network.train(was_training)
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    expected = (2, outputs, *(input.shape[:-1] if network.is_pixelwise else ()))
    if shape != expected:
        raise ModelError(f"family {family!r} returned {shape} for 2 samples; expected outputs of shape {expected}")
    if network.activation != "softmax":
        return
    if (found >= 0).all() and torch.allclose(total := found.float().sum(1), torch.ones_like(total), atol=1e-4):
        remedy = "remove its softmax, because ripieno applies one to the logits"
        raise ModelError(f"family {family!r} returned probabilities; expected logits; {remedy}")
