"""Residual network of series (Wang, Yan and Oates 2017): three blocks of three convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ripieno.models.series_config import RESNET_FILTERS, RESNET_KERNELS, SeriesConfig, series_shape
from ripieno.models.series_parts import MaskedNorm, SeriesBody, SeriesConvolution
from ripieno.types import Input


class SeriesBlock(nn.Module):
    """Three convolutions; the normalised input, of as many channels, is added to the last before its rectifier."""

    def __init__(self, c_in: int, c_out: int, kernels: list[int]) -> None:
        super().__init__()
        before, rectified = (c_in, c_out, c_out), (True, True, False)
        self.layers = nn.ModuleList(
            SeriesConvolution(channels, c_out, kernel, rectified=is_rectified)
            for channels, kernel, is_rectified in zip(before, kernels, rectified, strict=True)
        )
        self.project = nn.Identity() if c_in == c_out else nn.Conv1d(c_in, c_out, 1, bias=False)
        self.norm = MaskedNorm(c_out)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute maps (batch, c_out, length), zero at padding."""
        y = x
        for layer in self.layers:
            y = layer(y, mask)
        return torch.relu(y + self.norm(self.project(x), mask)) * mask


class SeriesResNet(SeriesBody):
    """Three blocks."""

    def __init__(self, config: SeriesConfig, input: Input, outputs: int) -> None:
        length, channels = series_shape(input)
        widths = [config.filters(filters) for filters in RESNET_FILTERS]
        super().__init__(config, widths[-1], outputs)
        kernels = [config.kernel(kernel, length) for kernel in RESNET_KERNELS]
        before = (channels, *widths)
        self.blocks = nn.ModuleList(SeriesBlock(*sizes, kernels) for sizes in zip(before, widths, strict=False))

    def maps(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute maps (batch, filters, length)."""
        for block in self.blocks:
            x = block(x, mask)
        return x
