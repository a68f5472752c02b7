"""Construction of networks by family: `resnet`, or a user's own `module:function`.

A family's function takes (configuration, input, classes) and returns a module from normalised float32 images NCHW to
logits. `build` wraps it into `Network`, which takes images in the data set's form.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ripieno.errors import ModelError, RipienoError, error_summary
from ripieno.models.resnet import resnet
from ripieno.models.resnet_config import image_shape
from ripieno.types import Configuration, Input

Family = Callable[[Configuration, Input, int], nn.Module]
FAMILIES: dict[str, Family] = {"resnet": resnet}
"""The built-in families."""


class Network(nn.Module):
    """A family's module with the data set's input form: images NHWC, uint8 or float32, to logits (batch, classes).

    `mean` and `std` (channels,), in the unit of the images, are buffers: they are saved with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        # a constant channel would divide by zero
        self.register_buffer("std", torch.tensor([s or 1.0 for s in std], dtype=torch.float32))

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise `images` (batch, height, width, channels) into float32 (batch, channels, height, width)."""
        # NHWC viewed as NCHW is channels-last: no copy
        return ((images.to(torch.float32) - self.mean) / self.std).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (batch, classes) of `images` (batch, height, width, channels)."""
        logits: Tensor = self.body(self.normalise(images))
        return logits


def build(
    family: str,
    configuration: Configuration,
    input: Input,
    classes: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    trusted: Collection[str] = (),
) -> Network:
    """Build the network of `configuration`: images (batch, *input.shape) of `input.dtype` to logits (batch, classes).

    `family` is `resnet` or `module:function`; the latter is imported only when it is in `trusted`, the names that the
    user allows: a name read from a file is data, and importing it would run its code. `mean` and `std` are the data
    set's, per channel (default 0 and 1, which weights loaded later replace). Initial weights come from torch's
    generator.

    Raises ModelError for an unknown family or one that returns no such network, and for a bad configuration.
    """
    function = find_family(family, trusted)
    _, _, channels = image_shape(input)
    try:
        body = function(configuration, input, classes)
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
    network = Network(body, mean or (0.0,) * channels, std or (1.0,) * channels)
    if family not in FAMILIES:
        _check(family, network, input, classes)
    return network


def find_family(family: str, trusted: Collection[str] = ()) -> Family:
    """Return the function of a family. Raises ModelError when there is none, or it is not trusted."""
    if family in FAMILIES:
        return FAMILIES[family]
    module_name, colon, name = family.partition(":")
    if not (module_name and colon and name):
        raise ModelError(f"unknown family {family!r}; expected {' or '.join(FAMILIES)}, or your own as module:function")
    if family not in trusted:
        raise ModelError(f"family {family!r} is not trusted; pass --family {family} to allow its import")
    try:
        here = str(Path.cwd())  # a console script does not search the working folder by default
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)
        module = importlib.import_module(module_name)
    except Exception as error:  # the import of a user's module may raise anything
        remedy = "it must be importable from the working folder or from PYTHONPATH"
        line = error_summary(error, named=True)
        raise ModelError(f"family {family!r}: cannot import {module_name} ({line}); {remedy}") from error
    function = getattr(module, name, None)
    if not callable(function):
        found = f"{module_name} has no {name}" if function is None else f"{module_name}.{name} is not a function"
        expected = "expected a function of (configuration, input, classes)"
        raise ModelError(f"family {family!r}: {found}; {expected}")
    return cast(Family, function)


def _check(family: str, network: Network, input: Input, classes: int) -> None:
    """Run two blank images through a user's network, so that a wrong shape is reported here and not in training."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits = network(torch.zeros((2, *input.shape), dtype=getattr(torch, input.dtype)))
    except Exception as error:  # a user's network may raise anything
        line = error_summary(error, named=True)
        raise ModelError(f"family {family!r} cannot take images of shape {input.shape}: {line}") from error
    finally:
        network.train(was_training)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise ModelError(f"family {family!r} returned {shape} for 2 images; expected logits of shape (2, {classes})")
    if (logits >= 0).all() and torch.allclose(logits.float().sum(1), torch.ones(2), atol=1e-4):
        remedy = "remove its softmax, because ripieno applies one to the logits"
        raise ModelError(f"family {family!r} returned probabilities; expected logits; {remedy}")
