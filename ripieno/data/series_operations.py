"""Operations on series of which a policy chooses, each with a magnitude from 0 to 1 for every series.

At magnitude m, 0 changes nothing (Um et al. 2017, Le Guennec et al. 2016):

    jitter           normal noise with a share of 0.3 m of the channel's own standard deviation is added to each value
    scaling          the deviations of each channel from its mean are multiplied by 1 + m / 2 or by 1 - m / 2
    window-warp      a tenth of the series is stretched or shortened by a factor of 1 + 2 m, and the rest makes room
    crop             a window of a share of 1 - m / 2 of the series is stretched to its whole length
    channel-dropout  each channel is replaced by its mean with a probability of m / 2, but never all

Means and deviations are those of one series' points. Padding (NaN, at the end) stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ripieno.data.image_operations import Groups
from ripieno.data.series_augment import crop_times, mean_of, regular_times, resample, warp_times

JITTER, SCALING, STRETCH, CROP, DROPOUT = 0.3, 0.5, 2.0, 0.5, 0.5
"""Strengths at magnitude 1."""


@dataclass(frozen=True)
class SeriesDraws:
    """Random numbers of an operation on some series, of which each has its own."""

    magnitudes: Tensor
    """(samples,)"""
    signs: Tensor
    """(samples,) -1 or 1"""
    places: Tensor
    """(samples, 1) uniform, 0 to 1"""
    channels: Tensor
    """(samples, channels) uniform, 0 to 1"""
    noise: Tensor
    """(samples, channels, length) uniform, 0 to 1; empty where nothing is jittered"""


def jitter(series: Tensor, draws: SeriesDraws) -> Tensor:
    """Add noise in units of each channel's own standard deviation."""
    is_padding, points = _points(series)
    deviation = mean_of((series - mean_of(series, is_padding, points)).square(), is_padding, points).sqrt()
    normal: Tensor = torch.special.ndtri(draws.noise.clamp(_LEAST, 1 - _LEAST))
    return series + JITTER * draws.magnitudes[:, None, None] * deviation * normal


def scaling(series: Tensor, draws: SeriesDraws) -> Tensor:
    """Multiply the deviations of each channel from its mean, of each channel up or down."""
    is_padding, points = _points(series)
    signs = torch.where(draws.channels[:, :, None] < 0.5, -1.0, 1.0)
    mean = mean_of(series, is_padding, points)
    return mean + (series - mean) * (1 + SCALING * draws.magnitudes[:, None, None] * signs)


def window_warp(series: Tensor, draws: SeriesDraws) -> Tensor:
    """Stretch or shorten a tenth of each series."""
    is_padding, points = _points(series)
    factor = (draws.signs * torch.log1p(STRETCH * draws.magnitudes)).exp()[:, None]
    times = warp_times(regular_times(series.shape[2], points), factor, draws.places)
    return resample(series, times, points).masked_fill(is_padding, math.nan)


def crop(series: Tensor, draws: SeriesDraws) -> Tensor:
    """Stretch a window of each series to its whole length."""
    is_padding, points = _points(series)
    share = 1 - CROP * draws.magnitudes[:, None]
    times = crop_times(regular_times(series.shape[2], points), share, draws.places)
    return resample(series, times, points).masked_fill(is_padding, math.nan)


def channel_dropout(series: Tensor, draws: SeriesDraws) -> Tensor:
    """Replace channels by their mean; the one of the largest draw stays."""
    is_padding, points = _points(series)
    own = draws.channels
    dropped = (own < DROPOUT * draws.magnitudes[:, None]) & (own < own.amax(1, keepdim=True))
    mean = mean_of(series, is_padding, points)
    return torch.where(dropped[:, :, None], mean, series).masked_fill(is_padding, math.nan)


_LEAST = 2.0**-24
"""Least uniform number that becomes a normal one: nearer to 1, float32 would round to 1."""
SERIES_OPERATIONS: Mapping[str, Callable[[Tensor, SeriesDraws], Tensor]] = {
    "jitter": jitter,
    "scaling": scaling,
    "window-warp": window_warp,
    "crop": crop,
    "channel-dropout": channel_dropout,
}
"""Operations on series (samples, channels, length) by name. Each series depends on its own draws alone."""


@dataclass(frozen=True)
class SeriesOperations:
    """Operations on series of `channels` and at most `length` points: see `ripieno.train.policy_augmentation`."""

    channels: int
    length: int
    jitters: bool = True
    """whether noise is drawn for `jitter`"""

    @property
    def numbers(self) -> int:
        """Random numbers of a series for an operation."""
        return 1 + self.channels * (1 + self.length * self.jitters)

    def apply(self, series: Tensor, groups: Groups, magnitudes: Tensor, signs: Tensor, numbers: Tensor) -> Tensor:
        """Change the `groups` of `series` (samples, channels, length) in place; return them."""
        for name, part in groups:
            places, channels, noise = numbers[part].tensor_split([1, 1 + self.channels], 1)
            shape = (len(places), self.channels, self.length if self.jitters else 0)
            draws = SeriesDraws(magnitudes[part], signs[part], places, channels, noise.reshape(shape))
            series[part] = SERIES_OPERATIONS[name](series[part], draws)
        return series

    def apply_to_masks(self, masks: Tensor, groups: Groups, magnitudes: Tensor, signs: Tensor) -> Tensor:  # noqa: ARG002
        """Return `masks`: series have none."""
        return masks


def _points(series: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the padding of each series is (samples, 1, length), and its number of points (samples, 1)."""
    is_padding = series[:, :1].isnan()
    return is_padding, (~is_padding).sum(2).float()
