"""U-Nets of residual blocks (Ronneberger et al. 2015): an encoder, and a decoder that also takes the encoder's maps.

Input is float NCHW, normalised; outputs are logits (batch, classes, height, width). Sides that are no multiples of the
last level's stride are padded, and the logits cropped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ripieno.models.image_padding import ImagePadding
from ripieno.models.resnet import BLOCKS, LAYER_ACTIVATIONS, make_convolution
from ripieno.models.resnet_config import Architecture, Stage, image_shape
from ripieno.models.unet_config import UNetConfig, block_filters, levels, stem_kernel, unet_config
from ripieno.types import Configuration, Input


def enlarge(maps: Tensor, factor: int) -> Tensor:
    """Return `maps` (batch, channels, height, width) with both sides `factor` times longer, bilinear."""
    if factor == 1:
        return maps
    return functional.interpolate(maps, scale_factor=float(factor), mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """Stem, levels on the way down, levels on the way up, a 1x1 convolution to the classes."""

    def __init__(self, network: UNetConfig, input: Input, outputs: int) -> None:
        super().__init__()
        height, width, channels = image_shape(input)
        chosen = levels(network, input)
        first = chosen[0]
        self.stem_stride = first.side
        self.padding = ImagePadding(height, width, chosen[-1].side)
        kernel = stem_kernel(first)
        self.stem = make_convolution(channels, first.filters, kernel, first.side)
        self.norm = nn.BatchNorm2d(first.filters)
        self.act = LAYER_ACTIVATIONS[network.activation]
        before, self.down, self.up, self.narrow = first.filters, nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, level in enumerate(chosen):
            blocks: list[nn.Module] = []
            for number in range(network.blocks):
                blocks.append(_block(network, before, level.filters, 2 if index and not number else 1))
                before = level.filters
            self.down.append(nn.Sequential(*blocks))
        for level in reversed(chosen[:-1]):
            self.narrow.append(make_convolution(before, level.filters, 1))
            self.up.append(_block(network, 2 * level.filters, level.filters, 1))
            before = level.filters
        self.dropout = nn.Dropout2d(network.dropout)
        # pre-activation blocks end without norm and activation
        self.last_norm = nn.BatchNorm2d(before) if network.convolution == "v2" else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # with torch's own weights: with much smaller ones, rare classes may never be learned
        self.classifier = nn.Conv2d(before, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (batch, classes, height, width) of normalised images (batch, channels, height, width)."""
        x = self.act(self.norm(self.stem(self.padding(x))))
        kept = []
        for level in self.down:
            x = level(x)
            kept.append(x)
        x = self.dropout(kept.pop())
        for narrow, level in zip(self.narrow, self.up, strict=True):
            x = level(torch.cat((enlarge(narrow(x), 2), kept.pop()), 1))
        if self.last_norm is not None:
            x = self.act(self.last_norm(x))
        return self.padding.crop(enlarge(self.classifier(x), self.stem_stride))


def unet(configuration: Configuration, input: Input, outputs: int) -> nn.Module:
    """Create the U-Net of `configuration`. Raises ModelError naming a bad value."""
    return UNet(unet_config(configuration), input, outputs)


def _block(network: UNetConfig, c_in: int, c_out: int, stride: int) -> nn.Module:
    """Create a block of the residual family from `c_in` to `c_out` channels."""
    shape = Architecture(convolution=network.convolution, activation=network.activation)
    stage = Stage(1, block_filters(network, c_out), stride, c_in, c_out, 0, 0)
    return BLOCKS[network.convolution](shape, stage, c_in, stride)
