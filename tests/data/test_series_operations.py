"""Operations on series: nothing at magnitude 0, padding as it is, and each series by its own draws alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ripieno.data.series_operations import SERIES_OPERATIONS, SeriesDraws, SeriesOperations

LENGTHS = (30, 12, 2, 30, 25, 0)
CHANNELS = 3


def padded() -> Tensor:
    series = torch.randn(len(LENGTHS), CHANNELS, 30, generator=torch.Generator().manual_seed(0)) * 3 + 5
    for row, length in enumerate(LENGTHS):
        series[row, :, length:] = math.nan
    return series


def drawn(magnitude: float | Tensor, samples: int = len(LENGTHS)) -> SeriesDraws:
    uniform = torch.rand(samples, 2 + CHANNELS * 31, generator=torch.Generator().manual_seed(1))
    noise = uniform[:, 2 + CHANNELS :].reshape(samples, CHANNELS, 30)
    signs = torch.where(uniform[:, 1] < 0.5, -1.0, 1.0)
    return SeriesDraws(torch.ones(samples) * magnitude, signs, uniform[:, :1], uniform[:, 2 : 2 + CHANNELS], noise)


def part(draws: SeriesDraws, rows: slice, length: int = 30) -> SeriesDraws:
    values = [getattr(draws, name)[rows] for name in SeriesDraws.__dataclass_fields__]
    return SeriesDraws(*values[:-1], values[-1][:, :, :length])


@pytest.mark.parametrize("name", list(SERIES_OPERATIONS))
def test_each_operation_changes_points_by_its_magnitude_and_leaves_padding(name: str) -> None:
    operation, series = SERIES_OPERATIONS[name], padded()
    torch.testing.assert_close(operation(series, drawn(0.0)), series, equal_nan=True, atol=1e-4, rtol=0)
    found = [operation(series, drawn(magnitude)) for magnitude in (0.3, 1.0)]
    assert all(torch.equal(one.isnan(), series.isnan()) for one in found)
    changes = [(one - series)[[0, 3, 4]].nan_to_num().square().sum().sqrt() for one in found]
    assert 0 < changes[0] < changes[1]


@pytest.mark.parametrize("name", list(SERIES_OPERATIONS))
def test_each_series_depends_on_its_own_draws_alone(name: str) -> None:
    operation, series, draws = SERIES_OPERATIONS[name], padded(), drawn(torch.linspace(0.2, 1, len(LENGTHS)))
    whole = operation(series, draws)
    for row in range(len(series)):
        own = slice(row, row + 1)
        assert torch.equal(operation(series[own], part(draws, own)).nan_to_num(), whole[own].nan_to_num())
    short = LENGTHS[1]  # without its padding
    alone = operation(series[1:2, :, :short], part(draws, slice(1, 2), short))
    torch.testing.assert_close(alone, whole[1:2, :, :short])


def test_dropout_leaves_a_channel_and_puts_means_in_the_place_of_others() -> None:
    series = torch.randn(400, CHANNELS, 30, generator=torch.Generator().manual_seed(2))
    found = SERIES_OPERATIONS["channel-dropout"](series, drawn(1.0, 400))
    flat = found.std(2) < 1e-6
    assert not flat.all(1).any()
    assert 0.35 < flat.float().mean() < 0.5  # half, but for the channel that stays
    torch.testing.assert_close(found.mean(2), series.mean(2), atol=1e-5, rtol=0)
    assert torch.equal(found[~flat], series[~flat])


def test_a_crop_shows_a_window_and_jitter_is_in_units_of_the_channel() -> None:
    line = torch.arange(30.0).reshape(1, 1, 30).repeat(50, CHANNELS, 1)
    cropped = SERIES_OPERATIONS["crop"](line, drawn(0.4, 50))
    torch.testing.assert_close(cropped.diff(dim=2), torch.full((50, CHANNELS, 29), 0.8), atol=1e-4, rtol=0)
    scales = torch.tensor([1.0, 10.0, 0.0])[:, None]
    moved = SERIES_OPERATIONS["jitter"](line * scales, drawn(1.0, 50)) - line * scales
    shares = moved.std((0, 2)) / (line * scales)[0].std(1)
    torch.testing.assert_close(shares[:2], torch.tensor([0.3, 0.3]), atol=0.03, rtol=0)
    assert not moved[:, 2].any()


def test_noise_is_finite_for_the_least_and_the_largest_draw() -> None:
    series = torch.arange(4.0).reshape(1, 1, 4)
    noise = torch.tensor([0.0, 1.0, 0.5, 1 - 2.0**-24]).reshape(1, 1, 4)
    ones = torch.ones(1)
    found = SERIES_OPERATIONS["jitter"](series, SeriesDraws(ones, ones, ones[:, None], ones[:, None], noise))
    assert found.isfinite().all()


def test_groups_of_a_batch_are_changed_by_their_operations() -> None:
    series = padded()
    operations = SeriesOperations(CHANNELS, 30)
    numbers = torch.rand(len(series), operations.numbers, generator=torch.Generator().manual_seed(3))
    magnitudes, signs = torch.full((len(series),), 0.5), torch.ones(len(series))
    groups = [("jitter", slice(0, 3)), ("crop", slice(3, 4))]
    found = operations.apply(series.clone(), groups, magnitudes, signs, numbers)
    changed = [not torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(found, series, strict=True)]
    assert changed == [True, True, True, True, False, False]
    draws = SeriesDraws(magnitudes[3:4], signs[3:4], numbers[3:4, :1], numbers[3:4, 1:4], numbers[3:4, :0])
    assert torch.equal(found[3], SERIES_OPERATIONS["crop"](series[3:4], draws)[0])
    quiet = SeriesOperations(CHANNELS, 30, jitters=False)
    assert torch.equal(
        quiet.apply(series.clone(), groups[1:], magnitudes, signs, numbers[:, : quiet.numbers])[3], found[3]
    )
