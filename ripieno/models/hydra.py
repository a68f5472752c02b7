"""Hydra (Dempster, Schmidt and Webb 2023): groups of random convolutions compete at each point of a series.

Features are, for each kernel, the sum of its values where it is the largest of its group, and the share of points where
it is the smallest; half of the groups see the differences of neighbouring points. As in `minirocket`, a kernel that is
second by less than a small interval counts in part, so that rounding changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ripieno.models.fixed_transform import FixedTransform, draw_channels, spread_order
from ripieno.models.series_config import (
    HYDRA_BLOCK,
    HYDRA_KERNELS,
    HYDRA_TAPS,
    SeriesConfig,
    hydra_blocks,
    hydra_dilations,
    series_shape,
)
from ripieno.types import Input

CLOSENESS = 1000.0
"""Reciprocal of the interval within which a kernel counts in part."""
LEAST_SHARE = 1e-4
"""Added to shares before their square root, which is too steep at zero."""
MOST_CHANNELS = 8


class Hydra(FixedTransform):
    """Blocks of eight groups of eight kernels, each of one dilation, of the series or of its differences."""

    kernels: Tensor
    channels: Tensor

    def __init__(self, config: SeriesConfig, input: Input, outputs: int) -> None:
        length, channels = series_shape(input)
        blocks, together = hydra_blocks(config, length), HYDRA_BLOCK * HYDRA_KERNELS
        super().__init__(config, blocks, 2 * together, outputs)
        forms = [(dilation, differs) for dilation in hydra_dilations(length) for differs in (False, True)]
        self.forms = [forms[index] for index in spread_order(len(forms))]
        kernels = torch.randn(blocks, together, HYDRA_TAPS)
        kernels = kernels - kernels.mean(2, keepdim=True)
        self.register_buffer("kernels", kernels / kernels.abs().sum(2, keepdim=True))
        subsets = draw_channels(blocks * HYDRA_BLOCK, channels, MOST_CHANNELS)
        self.register_buffer("channels", subsets.view(blocks, HYDRA_BLOCK, channels))

    def compute_blocks(self, x: Tensor, mask: Tensor, first: int, last: int) -> list[Tensor]:
        """Compute the features of each block."""
        later = nn.functional.pad(mask, (0, 1))[:, :, 1:]
        differences = (nn.functional.pad(x, (0, 1))[:, :, 1:] - x) * later
        inputs = {False: (x, mask), True: (differences, later)}
        return [self._compete(*inputs[self.forms[b % len(self.forms)][1]], b) for b in range(first, last)]

    def _compete(self, x: Tensor, mask: Tensor, block: int) -> Tensor:
        """Compute the features (batch, width) of a block from its input."""
        dilation, _ = self.forms[block % len(self.forms)]
        subsets = self.channels[block][:, None, :, None]
        weight = (subsets * self.kernels[block].view(HYDRA_BLOCK, HYDRA_KERNELS, 1, HYDRA_TAPS)).flatten(0, 1)
        padding = HYDRA_TAPS // 2 * dilation
        maps = nn.functional.conv1d(x, weight, padding=padding, dilation=dilation)
        maps = maps.view(-1, HYDRA_BLOCK, HYDRA_KERNELS, maps.shape[2])
        largest, smallest = maps.amax(2, keepdim=True), maps.amin(2, keepdim=True)
        mean = (mask / mask.sum(2, keepdim=True).clamp_min(1.0)).transpose(1, 2)[:, None]
        wins = (1.0 - (largest - maps) * CLOSENESS).clamp_min(0.0) * largest.clamp_min(0.0)
        losses = (1.0 - (maps - smallest) * CLOSENESS).clamp_min(0.0)
        shares = torch.cat([torch.matmul(wins, mean), torch.matmul(losses, mean)], 2)
        return (shares.flatten(1) + LEAST_SHARE).sqrt()
