"""Augmentation of series, for a whole batch at once on the training device.

Each strength is 0 for no change. Every series draws its own values (Le Guennec et al. 2016, Um et al. 2017):

    crop         a window of a share of 1 - c to 1 of the series is stretched to its whole length
    window_warp  a tenth of the series is stretched or shortened by a factor of 1 / (1 + w) to 1 + w, log-uniform, and
                 the rest makes room: the length stays
    scaling      the deviations of each channel from its mean are multiplied by 1 - s to 1 + s
    jitter       normal noise is added to each value, with a share of j of the channel's own standard deviation

They are applied in this order; a crop and a warp are one map of time with one linear interpolation. Means and
deviations are those of one series' points. Padding (NaN, at the end) stays as it is, and is never interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ripieno.errors import DataError

WINDOW = 0.1
"""Share of a series that a window warp stretches or shortens."""
STRENGTHS = ("crop", "window_warp", "scaling", "jitter")
_NUMBERS = 4
"""Random numbers of a series for a crop and a window warp."""


@dataclass(frozen=True)
class SeriesAugmentation:
    """Random changes to series of at most `length` points; the defaults change nothing.

    Raises DataError for a strength that is not at least 0 and below 1.
    """

    jitter: float = 0.0
    scaling: float = 0.0
    window_warp: float = 0.0
    crop: float = 0.0
    length: int = 0

    def __post_init__(self) -> None:
        for name in STRENGTHS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise DataError(f"{name} is {value!r}: it must be a number of at least 0 and below 1")

    @property
    def is_identity(self) -> bool:
        """True when nothing changes, so that no random number is drawn."""
        return not (self.warps or self.scaling or self.jitter)

    @property
    def warps(self) -> bool:
        """True when points move, which is the most expensive change."""
        return bool(self.crop or self.window_warp)

    def draw(self, samples: int, channels: int, generator: torch.Generator) -> Tensor:
        """Draw the random numbers of `apply` on `generator`'s device: uniform ones, then the noise if there is any."""
        device = generator.device
        uniform = torch.rand(samples, _NUMBERS + channels, generator=generator, device=device)
        if not self.jitter:
            return uniform
        noise = torch.randn(samples, channels * self.length, generator=generator, device=device)
        return torch.cat([uniform, noise], 1)

    def apply(self, series: Tensor, draws: Tensor) -> Tensor:
        """Return `series` (samples, channels, length), floating point, changed by `draws` on their device.

        Each depends on its own row of draws alone. Shape, type, device and padding stay the same.
        """
        channels = series.shape[1]
        # contiguous: the order of a sum must not depend on the number of samples
        series = series.contiguous()
        is_padding = series[:, :1].isnan()
        points = (~is_padding).sum(2).float()
        if self.warps:
            series = resample(series, self._times(draws[:, :_NUMBERS], points), points)
        if self.scaling:
            factors = 1 + self.scaling * (2 * draws[:, _NUMBERS : _NUMBERS + channels, None] - 1)
            mean = mean_of(series, is_padding, points)
            series = mean + (series - mean) * factors
        if self.jitter:
            noise = draws[:, _NUMBERS + channels :].reshape(series.shape)
            deviation = mean_of((series - mean_of(series, is_padding, points)).square(), is_padding, points).sqrt()
            series = series + self.jitter * deviation * noise
        return series.masked_fill(is_padding, math.nan)

    def _times(self, draws: Tensor, points: Tensor) -> Tensor:
        """Return where each point is taken from (samples, length), 0..1 of the series; `points` are (samples, 1)."""
        share, start, factor, window = draws[:, :, None].unbind(1)
        times = regular_times(self.length, points)
        if self.window_warp:
            factor = torch.exp(math.log1p(self.window_warp) * (2 * factor - 1))
            times = warp_times(times, factor, window)
        if self.crop:
            times = crop_times(times, 1 - self.crop * share, start)
        return times


def regular_times(length: int, points: Tensor) -> Tensor:
    """Return the places (samples, length) of the points of series, 0..1; `points` (samples, 1) are not padding."""
    steps = torch.arange(length, dtype=torch.float32, device=points.device)
    return (steps / (points - 1).clamp(min=1)).clamp(max=1)


def warp_times(times: Tensor, factor: Tensor, window: Tensor) -> Tensor:
    """Return `times` (samples, length) with a tenth of the series stretched by `factor` and the rest shortened.

    `window` is where that tenth begins, 0..1; both are (samples, 1).
    """
    begin, warped = window * (1 - WINDOW), WINDOW * factor
    times = times * (1 - WINDOW + warped)  # of the series with the stretched window
    inside = (times - begin).clamp(min=0).minimum(warped)
    return times.minimum(begin) + inside / factor + (times - begin - warped).clamp(min=0)


def crop_times(times: Tensor, share: Tensor, start: Tensor) -> Tensor:
    """Return `times` (samples, length) within a window of a `share` of the series; `start` 0..1 is its place.

    Both are (samples, 1).
    """
    return start * (1 - share) + times * share


def resample(series: Tensor, times: Tensor, points: Tensor) -> Tensor:
    """Return the values of `series` (samples, channels, length) at `times` (samples, length), 0..1 of their `points`.

    Values between two points are interpolated; `points` are (samples, 1).
    """
    last = (points - 1).clamp(min=0)
    places = (times * last).clamp(min=0).minimum(last)
    before = places.floor()
    share = (places - before)[:, None].to(series.dtype)
    indices = torch.stack([before, (before + 1).minimum(last)]).long()[:, :, None].expand(-1, -1, series.shape[1], -1)
    left, right = series.gather(2, indices[0]), series.gather(2, indices[1])
    return left + (right - left) * share


def mean_of(series: Tensor, is_padding: Tensor, points: Tensor) -> Tensor:
    """Return the mean of each channel over the points of its series (samples, channels, 1)."""
    return series.masked_fill(is_padding, 0).sum(2, keepdim=True) / points[:, :, None].clamp(min=1)
