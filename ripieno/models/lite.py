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

WINDOW = 32
"""Points of a series whose convolution by channel is one row of a product."""


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
        # graphs are exported in evaluation mode
        in_windows = self.training and x.device.type == "cpu"
        x = convolve_windows(x, self.by_channel) if in_windows else self.by_channel(x)
        return torch.relu(self.norm(self.across(x), mask)) * mask


def convolve_windows(x: Tensor, convolution: nn.Conv1d) -> Tensor:
    """Compute a convolution by channel as products of windows of the series with banded matrices.

    Torch 2.13's own takes 1.4 to 1.9 times as long on a CPU, with its gradient.
    """
    batch, channels, length = x.shape
    taps, dilation = convolution.kernel_size[0], convolution.dilation[0]
    reach, count = int(convolution.padding[0]), -(-length // WINDOW)
    padded = nn.functional.pad(x, (reach, reach + count * WINDOW - length))
    windows = padded.unfold(2, WINDOW + 2 * reach, WINDOW).permute(1, 0, 2, 3).flatten(1, 2)
    columns = torch.arange(WINDOW, device=x.device)
    rows = columns + torch.arange(taps, device=x.device)[:, None] * dilation
    bands = x.new_zeros(channels, WINDOW + 2 * reach, WINDOW)
    bands[:, rows, columns.expand(taps, WINDOW)] = convolution.weight.to(x.dtype).expand(channels, 1, taps).mT
    return torch.bmm(windows, bands).view(channels, batch, count * WINDOW).transpose(0, 1)[:, :, :length]


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
