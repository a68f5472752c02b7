"""LITE, a light inception network of series (Ismail-Fawaz et al. 2023): some ten thousand weights.

Its first layer has convolutions of three lengths, and filters made by hand that detect rises, falls and peaks; two
separable convolutions follow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ripieno.models.inception import ParallelConvolutions
from ripieno.models.series_config import (
    PARALLEL_FILTERS,
    PARALLEL_KERNELS,
    PEAK_FILTERS,
    SEPARABLE_LAYERS,
    TREND_FILTERS,
    SeriesConfig,
    fixed_lengths,
    series_shape,
)
from ripieno.models.series_parts import MaskedNorm, SeriesBody
from ripieno.types import Input


class HandMadeFilters(nn.Module):
    """Fixed filters on the sum of the channels: alternating signs for a trend, three parabolas for a peak."""

    kernels: Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        trends = [trend_filter(size) for size in fixed_lengths(TREND_FILTERS, length)]
        filters = [*trends, *map(peak_filter, fixed_lengths(PEAK_FILTERS, length))]
        self.trends, self.channels = len(trends), len(trends) + len(filters)
        longest = max(map(len, filters), default=0) | 1
        # not in the state: they follow from the length
        self.register_buffer("kernels", torch.zeros(len(filters), 1, longest), persistent=False)
        for kernel, values in zip(self.kernels, filters, strict=True):
            start = (longest - len(values)) // 2
            kernel[0, start : start + len(values)] = values

    def forward(self, x: Tensor) -> Tensor:
        """Compute maps (batch, self.channels, length) of series (batch, channels, length)."""
        if not self.channels:
            return x[:, :0]
        y = nn.functional.conv1d(x.sum(1, keepdim=True), self.kernels, padding=self.kernels.shape[2] // 2)
        return torch.cat([y, -y[:, : self.trends]], 1)


def trend_filter(size: int) -> Tensor:
    """Return a filter of `size` taps with the signs -, +, -, ...; its opposite detects a fall."""
    signs = torch.ones(size)
    signs[::2] = -1.0
    return signs


def peak_filter(size: int) -> Tensor:
    """Return a filter of `size` taps: a parabola up to 1 and back, twice as high and positive in the middle third."""
    rise = torch.linspace(0.0, 1.0, size // 6 + 1)[1:].square()
    bump = torch.cat([rise, rise.flip(0)])
    return torch.cat([-bump, 2 * bump, -bump])


class SeparableConvolution(nn.Module):
    """A dilated convolution in each channel, one across channels, norm and rectifier."""

    def __init__(self, c_in: int, c_out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        padding = kernel // 2 * dilation
        self.by_channel = nn.Conv1d(c_in, c_in, kernel, 1, padding, dilation, groups=c_in, bias=False)
        self.across = nn.Conv1d(c_in, c_out, 1, bias=False)
        self.norm = MaskedNorm(c_out)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute maps (batch, c_out, length), zero at padding."""
        return torch.relu(self.norm(self.across(self.by_channel(x)), mask)) * mask


class Lite(SeriesBody):
    """Parallel convolutions with hand-made filters, and two separable convolutions."""

    def __init__(self, config: SeriesConfig, input: Input, outputs: int) -> None:
        length, channels = series_shape(input)
        filters = config.filters(PARALLEL_FILTERS)
        super().__init__(config, filters, outputs)
        kernels = [config.kernel(kernel, length) for kernel in PARALLEL_KERNELS]
        self.parallel, self.fixed = ParallelConvolutions(channels, filters, kernels), HandMadeFilters(length)
        joined = len(kernels) * filters + self.fixed.channels
        self.norm = MaskedNorm(joined)
        self.layers = nn.ModuleList(
            SeparableConvolution(c_in, filters, config.kernel(kernel, length), dilation)
            for c_in, (kernel, dilation) in zip((joined, filters), SEPARABLE_LAYERS, strict=True)
        )

    def maps(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute maps (batch, filters, length)."""
        x = torch.cat([self.parallel(x), self.fixed(x)], 1)
        x = torch.relu(self.norm(x, mask)) * mask
        for layer in self.layers:
            x = layer(x, mask)
        return x
