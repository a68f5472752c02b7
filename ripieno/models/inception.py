"""Inception network of series (Ismail Fawaz et al. 2020): modules of parallel convolutions, with shortcuts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ripieno.models.series_config import (
    INCEPTION_DEPTH,
    INCEPTION_SHORTCUT,
    PARALLEL_FILTERS,
    PARALLEL_KERNELS,
    SeriesConfig,
    series_shape,
)
from ripieno.models.series_parts import MaskedNorm, SeriesBody
from ripieno.types import Input


class ParallelConvolutions(nn.Module):
    """Convolutions of several kernels on one input; their maps, (batch, kernels * filters, length), are joined."""

    def __init__(self, c_in: int, filters: int, kernels: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(c_in, filters, kernel, padding=kernel // 2, bias=False) for kernel in kernels
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the maps, without norm and rectifier."""
        return torch.cat([layer(x) for layer in self.layers], 1)


class InceptionModule(nn.Module):
    """A narrow map by three kernels, and a maximum of three points, each to `filters` maps."""

    def __init__(self, c_in: int, filters: int, kernels: list[int]) -> None:
        super().__init__()
        self.narrow = nn.Conv1d(c_in, filters, 1, bias=False) if c_in > 1 else nn.Identity()
        self.parallel = ParallelConvolutions(filters if c_in > 1 else c_in, filters, kernels)
        self.pooled = nn.Conv1d(c_in, filters, 1, bias=False)
        self.norm = MaskedNorm(4 * filters)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute maps (batch, 4 * filters, length), zero at padding."""
        # zeros at both ends, as padding has
        largest = nn.functional.max_pool1d(nn.functional.pad(x, (1, 1)), 3, 1)
        x = torch.cat([self.parallel(self.narrow(x)), self.pooled(largest)], 1)
        return torch.relu(self.norm(x, mask)) * mask


class Inception(SeriesBody):
    """Modules, and a shortcut past each few of them."""

    def __init__(self, config: SeriesConfig, input: Input, outputs: int) -> None:
        length, channels = series_shape(input)
        filters = config.filters(PARALLEL_FILTERS)
        wide = 4 * filters
        super().__init__(config, wide, outputs)
        kernels = [config.kernel(kernel, length) for kernel in PARALLEL_KERNELS]
        before = [channels, *[wide] * (INCEPTION_DEPTH - 1)]
        self.blocks = nn.ModuleList(InceptionModule(c_in, filters, kernels) for c_in in before)
        passed = before[::INCEPTION_SHORTCUT]
        self.shortcuts = nn.ModuleList(nn.Conv1d(c_in, wide, 1, bias=False) for c_in in passed)
        self.norms = nn.ModuleList(MaskedNorm(wide) for _ in passed)

    def maps(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute maps (batch, 4 * filters, length)."""
        for number, (shortcut, norm) in enumerate(zip(self.shortcuts, self.norms, strict=True)):
            start = x
            first = number * INCEPTION_SHORTCUT
            for block in self.blocks[first : first + INCEPTION_SHORTCUT]:
                x = block(x, mask)
            x = torch.relu(x + norm(shortcut(start), mask)) * mask
        return x
