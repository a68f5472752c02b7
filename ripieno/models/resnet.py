"""Residual networks: post-activation (v1), pre-activation (v2, He et al. 2016) and grouped (next, Xie et al. 2017).

Input is float NCHW, normalised; outputs are (batch, outputs). The family of the paper's table 5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ripieno.models.resnet_config import Architecture, Stage, architecture, groups, image_shape, stages, stem
from ripieno.types import Configuration, Input

LAYER_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": nn.functional.elu,
}


def make_convolution(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Create a convolution without bias (a norm follows or precedes it); only the stride changes the map's size."""
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


class _Projection(nn.Conv2d):
    """A 1x1 convolution with an optional stride.

    In training it selects the pixels itself: torch 2.13's backward of a strided one on a CPU, channels-last, of 14 to
    28 channels, by two threads, ends in a segmentation fault. Graphs are exported in evaluation mode and not affected.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute a map of `c_out` channels."""
        step = self.stride[0]
        if not self.training or step == 1:
            return super().forward(x)
        return nn.functional.conv2d(x[:, :, ::step, ::step], self.weight)


class _Block(nn.Module):
    """Base of the three blocks: the activation and the projection of the shortcut."""

    def __init__(self, network: Architecture, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.act = LAYER_ACTIVATIONS[network.activation]
        self.project = _Projection(c_in, c_out, stride) if stride != 1 or c_in != c_out else None


class PostActivation(_Block):
    """v1: conv, norm, act, conv, norm, add, act."""

    def __init__(self, network: Architecture, stage: Stage, c_in: int, stride: int) -> None:
        c_out = stage.channels_out
        super().__init__(network, c_in, c_out, stride)
        self.conv1, self.norm1 = make_convolution(c_in, c_out, 3, stride), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = make_convolution(c_out, c_out), nn.BatchNorm2d(c_out)
        self.norm = None if self.project is None else nn.BatchNorm2d(c_out)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Compute a map of `stage.channels_out` channels."""
        shortcut = x if self.project is None or self.norm is None else self.norm(self.project(x))
        y = self.act(self.norm1(self.conv1(x)))
        return self.act(self.norm2(self.conv2(y)) + shortcut)


class PreActivation(_Block):
    """v2: norm, act, conv, norm, act, conv, add; the input of the projection is the activated map."""

    def __init__(self, network: Architecture, stage: Stage, c_in: int, stride: int) -> None:
        c_out = stage.channels_out
        super().__init__(network, c_in, c_out, stride)
        self.norm1, self.conv1 = nn.BatchNorm2d(c_in), make_convolution(c_in, c_out, 3, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(c_out), make_convolution(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Compute a map of `stage.channels_out` channels."""
        y = self.act(self.norm1(x))
        shortcut = x if self.project is None else self.project(y)
        out: Tensor = self.conv2(self.act(self.norm2(self.conv1(y)))) + shortcut
        return out


class Grouped(_Block):
    """next: a bottleneck 1x1, 3x3 in groups, 1x1, each with its norm; add, act."""

    def __init__(self, network: Architecture, stage: Stage, c_in: int, stride: int) -> None:
        c_out = stage.channels_out
        super().__init__(network, c_in, c_out, stride)
        count, middle = groups(stage.filters)
        self.conv1, self.norm1 = make_convolution(c_in, middle, 1), nn.BatchNorm2d(middle)
        self.conv2, self.norm2 = make_convolution(middle, middle, 3, stride, count), nn.BatchNorm2d(middle)
        self.conv3, self.norm3 = make_convolution(middle, c_out, 1), nn.BatchNorm2d(c_out)
        self.norm = None if self.project is None else nn.BatchNorm2d(c_out)
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Compute a map of `stage.channels_out` channels."""
        shortcut = x if self.project is None or self.norm is None else self.norm(self.project(x))
        y = self.act(self.norm1(self.conv1(x)))
        y = self.act(self.norm2(self.conv2(y)))
        return self.act(self.norm3(self.conv3(y)) + shortcut)


BLOCKS: dict[str, Callable[[Architecture, Stage, int, int], _Block]] = {
    "v1": PostActivation,
    "v2": PreActivation,
    "next": Grouped,
}


class ResNet(nn.Module):
    """Stem, four stages, mean over the map, classifier."""

    def __init__(self, network: Architecture, input: Input, outputs: int) -> None:
        super().__init__()
        first = stem(input)
        pre = network.convolution == "v2"
        _, _, channels = image_shape(input)
        self.act = LAYER_ACTIVATIONS[network.activation]
        self.conv = make_convolution(channels, network.stem_filters, first.kernel, first.stride)
        self.norm = None if pre else nn.BatchNorm2d(network.stem_filters)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if first.pool else None
        blocks: list[nn.Module] = []
        for stage in stages(network, input):
            for index in range(stage.blocks):
                c_in, stride = (stage.channels_in, stage.stride) if index == 0 else (stage.channels_out, 1)
                blocks.append(BLOCKS[network.convolution](network, stage, c_in, stride))
        self.blocks = nn.Sequential(*blocks)
        self.last_norm = nn.BatchNorm2d(stage.channels_out) if pre else None
        self.classifier = nn.Linear(stage.channels_out, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs (batch, outputs) of normalised images (batch, channels, height, width)."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.act(self.norm(x))
        if self.pool is not None:
            x = self.pool(x)
        x = self.blocks(x)
        if self.last_norm is not None:
            x = self.act(self.last_norm(x))
        outputs: Tensor = self.classifier(x.mean((2, 3)))
        return outputs


def resnet(configuration: Configuration, input: Input, outputs: int) -> nn.Module:
    """Create the residual network of `configuration`. Raises ModelError naming a bad value."""
    return ResNet(architecture(configuration), input, outputs)
