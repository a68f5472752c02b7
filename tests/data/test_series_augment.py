"""Augmentation of series: its range, its padding, and its independence of the batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ripieno.data.series_augment import WINDOW, SeriesAugmentation, resample
from ripieno.errors import DataError, ModelError
from ripieno.models.build import channels_first
from ripieno.train.augmentation import augmentation
from ripieno.train.batching import InputTransform
from ripieno.types import Dataset, classification

ALL = {"jitter": 0.1, "scaling": 0.2, "window_warp": 0.5, "crop": 0.3}
LENGTHS = (30, 12, 2, 30, 25)


def padded(channels: int = 2) -> Tensor:
    series = torch.randn(len(LENGTHS), channels, 30, generator=torch.Generator().manual_seed(0)) * 3 + 5
    for row, length in enumerate(LENGTHS):
        series[row, :, length:] = math.nan
    return series


def changed(series: Tensor, **strengths: float) -> Tensor:
    augment = SeriesAugmentation(**strengths, length=series.shape[2])
    return augment.apply(series, augment.draw(len(series), series.shape[1], torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", list(ALL))
def test_each_strength_changes_points_and_leaves_padding(name: str) -> None:
    series = padded()
    found = changed(series, **{name: ALL[name]})
    assert torch.equal(found.isnan(), series.isnan())
    assert not torch.equal(found[0], series[0])
    assert found.dtype == series.dtype
    assert SeriesAugmentation(length=30).is_identity


def test_every_series_depends_on_its_own_draws_alone() -> None:
    series = padded()
    augment = SeriesAugmentation(**ALL, length=30)
    draws = augment.draw(5, 2, torch.Generator().manual_seed(1))
    whole = augment.apply(series, draws)
    for row in range(5):
        alone = augment.apply(series[row : row + 1], draws[row : row + 1])
        assert torch.equal(torch.nan_to_num(alone[0]), torch.nan_to_num(whole[row]))
    length = LENGTHS[1]
    shorter = SeriesAugmentation(scaling=0.2, window_warp=0.5, crop=0.3, length=length)
    found = shorter.apply(series[1:2, :, :length], draws[1:2])  # without its padding
    expected = SeriesAugmentation(scaling=0.2, window_warp=0.5, crop=0.3, length=30).apply(series[1:2], draws[1:2])
    torch.testing.assert_close(found, expected[:, :, :length])


def test_a_crop_shows_a_window_of_the_series() -> None:
    line = torch.arange(30.0).reshape(1, 1, 30).repeat(200, 1, 1)
    found = changed(line, crop=0.4)[:, 0]
    spans = (found[:, -1] - found[:, 0]) / 29
    assert 0.6 <= spans.min() < 0.65
    assert 0.95 < spans.max() <= 1
    assert found.min() >= 0
    assert found.max() <= 29
    torch.testing.assert_close(found.diff(dim=1), (spans[:, None]).expand(-1, 29), atol=1e-4, rtol=0)


def test_a_warp_changes_the_speed_of_a_tenth_of_the_series() -> None:
    line = torch.linspace(0, 1, 1001).reshape(1, 1, -1).repeat(100, 1, 1)
    found = changed(line, window_warp=0.8)[:, 0]
    torch.testing.assert_close(found[:, [0, -1]], torch.tensor([0.0, 1.0]).expand(100, 2))
    speeds = found.diff(dim=1) * 1000
    assert (speeds >= 0).all()
    usual = speeds.median(dim=1, keepdim=True).values
    factors = usual[:, 0] / speeds.gather(1, (speeds - usual).abs().argmax(1, keepdim=True))[:, 0]
    assert 1 / 1.81 < factors.min() < 0.7
    assert 1.4 < factors.max() < 1.81
    # the rest of the series makes room: its speed is that of a series of the new length
    torch.testing.assert_close(usual[:, 0], 1 + WINDOW * (factors - 1), atol=0.02, rtol=0)


def test_scaling_and_jitter_follow_each_channel() -> None:
    series = padded().repeat(200, 1, 1)
    points = series[::5]
    deviations, means = points.std(2, correction=0), points.mean(2)
    scaled = changed(series, scaling=0.2)[::5]
    torch.testing.assert_close(scaled.mean(2), means)
    ratio = scaled.std(2, correction=0) / deviations
    assert 0.8 <= ratio.min() < 0.82
    assert 1.18 < ratio.max() <= 1.2001
    noise = changed(series, jitter=0.1)[::5] - points
    torch.testing.assert_close(noise.std((0, 2)) / deviations[0], torch.tensor([0.1, 0.1]), atol=0.003, rtol=0)


def test_resampling_interpolates_between_points() -> None:
    series = torch.tensor([[[0.0, 2.0, 4.0, math.nan]]])
    found = resample(series, torch.tensor([[0.0, 0.25, 0.5, 1.0]]), torch.tensor([[3.0]]))
    assert found.tolist() == [[[0.0, 1.0, 2.0, 4.0]]]


@pytest.mark.parametrize("value", [-0.1, 1, "much", True, math.nan])
def test_a_strength_out_of_range_is_told(value: Any) -> None:
    with pytest.raises(DataError, match=r"crop is .*: it must be a number of at least 0 and below 1"):
        SeriesAugmentation(crop=value)


def made(kind: Any, *shape: int) -> Dataset:
    inputs, codes = np.ones((6, *shape), np.float32), np.arange(6) % 2
    channels = (0.0,) * shape[-1]
    return Dataset("x", inputs, codes, np.zeros(6, np.uint8), classification("ab"), channels, channels, kind)


def test_the_kind_of_data_chooses_the_augmentation() -> None:
    found = augmentation({"jitter": 0.2, "width": 3}, made("series", 9, 2))
    assert found == SeriesAugmentation(jitter=0.2, length=9)
    assert augmentation({"max_zoom": 0.2}, made("image", 4, 4, 1)).warps
    with pytest.raises(ModelError, match="max_zoom augments images, but the inputs are of kind series"):
        augmentation({"max_zoom": 0.2}, made("series", 9, 2))


def test_batches_of_series_are_augmented_and_normalised() -> None:
    inputs = padded().permute(0, 2, 1)
    augment = SeriesAugmentation(**ALL, length=30)
    draws = augment.draw(5, 2, torch.Generator().manual_seed(1))
    found = InputTransform(augment, torch.tensor([5.0, 5.0]), torch.tensor([3.0, 3.0]))(inputs, draws)
    expected = (augment.apply(channels_first(inputs), draws) - 5) / 3
    torch.testing.assert_close(channels_first(found), expected, equal_nan=True)
