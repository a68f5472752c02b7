"""MiniRocket (Dempster, Schmidt and Webb 2021): shares of the points at which fixed convolutions exceed a bias.

The kernels have nine taps, three of 2 and six of -1: all 84 of them, at several dilations. Biases are quantiles of the
convolution of training series. A point does not count from one value to the next, as it does in the paper, but rises
from 0 to 1 within a small interval: rounding, in which backends differ, then changes no feature visibly, even where
values are constant and equal to their bias.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from ripieno.models.fixed_transform import FixedTransform, draw_channels, spread_order
from ripieno.models.series_config import (
    ROCKET_KERNELS,
    ROCKET_TAPS,
    SeriesConfig,
    rocket_blocks,
    rocket_dilations,
    series_shape,
)
from ripieno.types import Input

STEEPNESS = 100.0
"""Reciprocal of the interval in which a point begins to count, in deviations of a normalised series."""
_GOLDEN = (5**0.5 - 1) / 2


class MiniRocket(FixedTransform):
    """Blocks of 84 features: each of one dilation, with a bias for each kernel."""

    kernels: Tensor
    channels: Tensor
    biases: Tensor

    def __init__(self, config: SeriesConfig, input: Input, outputs: int) -> None:
        length, channels = series_shape(input)
        super().__init__(config, rocket_blocks(config), ROCKET_KERNELS, outputs)
        dilations = rocket_dilations(length)
        self.dilations = [dilations[index] for index in spread_order(len(dilations))]
        self.register_buffer("kernels", rocket_kernels(), persistent=False)
        subsets = draw_channels(len(dilations) * ROCKET_KERNELS, channels, ROCKET_TAPS)
        self.register_buffer("channels", subsets.view(len(dilations), ROCKET_KERNELS, channels))
        self.register_buffer("biases", torch.zeros(self.blocks, ROCKET_KERNELS))

    def fit_transform(self, x: Tensor) -> None:
        """Set the biases to quantiles of the convolutions of series (samples, channels, length), one for each block."""
        x, mask = self.prepare(x)
        for block in range(self.blocks):
            number = block % len(self.dilations)
            sample = int(torch.randint(len(x), ()))
            points = int(mask[sample].sum())
            values = self._convolve(x[sample : sample + 1, :, :points], number)[0].sort(1).values
            position = torch.arange(block * ROCKET_KERNELS + 1, (block + 1) * ROCKET_KERNELS + 1)
            index = ((position * _GOLDEN) % 1.0 * points).long().to(values.device)
            self.biases[block] = values.gather(1, index[:, None])[:, 0]

    def compute_blocks(self, x: Tensor, mask: Tensor, first: int, last: int) -> list[Tensor]:
        """Compute the features of each block, every second one only of the points at which no tap is padding."""
        blocks: dict[int, Tensor] = {}
        for number, dilation in enumerate(self.dilations):
            chosen = [b for b in range(first, last) if b % len(self.dilations) == number]
            if not chosen:
                continue
            maps = self._convolve(x, number) * STEEPNESS
            means = [_mean_of(inner_points(mask, dilation * (ROCKET_TAPS // 2))), _mean_of(mask)]
            for block in chosen:
                bias = (self.biases[block] * STEEPNESS - 0.5)[:, None]
                padded = (number + block // len(self.dilations)) % 2
                blocks[block] = torch.matmul((maps - bias).clamp(0.0, 1.0), means[padded])[:, :, 0]
        return [blocks[block] for block in range(first, last)]

    def _convolve(self, x: Tensor, number: int) -> Tensor:
        """Compute the maps (batch, kernels, length) of a dilation."""
        weight = self.channels[number][:, :, None] * self.kernels
        dilation = self.dilations[number]
        return nn.functional.conv1d(x, weight, padding=ROCKET_TAPS // 2 * dilation, dilation=dilation)


def rocket_kernels() -> Tensor:
    """Return all kernels (84, 1, 9) with three taps of 2 and six of -1."""
    kernels = torch.full((ROCKET_KERNELS, 1, ROCKET_TAPS), -1.0)
    for kernel, taps in zip(kernels, itertools.combinations(range(ROCKET_TAPS), 3), strict=True):
        kernel[0, list(taps)] = 2.0
    return kernels


def inner_points(mask: Tensor, reach: int) -> Tensor:
    """Return the mask (batch, 1, length) without the first and last `reach` points of each series."""
    length = mask.shape[2]
    later = nn.functional.pad(mask, (0, reach))[:, :, reach:]
    inside = (torch.arange(length, device=mask.device) >= reach).to(mask.dtype)
    return later * inside


def _mean_of(mask: Tensor) -> Tensor:
    """Return the factors (batch, length, 1) that give the mean over the points of a mask; zero where it has none."""
    return (mask / mask.sum(2, keepdim=True).clamp_min(1.0)).transpose(1, 2)
