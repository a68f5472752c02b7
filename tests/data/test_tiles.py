"""Tiles of pictures: their predictions join to those of the picture, whatever its size, and edges count least."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ripieno.data.tiles import (
    LOWEST,
    PictureSamples,
    ResizedPicture,
    TileAxis,
    TiledPicture,
    check_overlap,
)
from ripieno.errors import DataError


def joined(picture: PictureSamples, most: int = 1000, scale: float = 1.0) -> NDArray[np.float32]:
    """Return what a network predicts that gives each pixel itself, times `scale`."""
    joiner = picture.joiner()
    bands = [
        band
        for group in picture.groups(most)
        for band in joiner.add(picture.samples(group).astype(np.float32) * np.float32(scale))
    ]
    return np.concatenate(bands)


@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    tile=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]),
    most=st.sampled_from([1, 5, 1000]),
)
def test_predictions_of_tiles_are_joined_to_those_of_the_picture(
    size: tuple[int, int], tile: tuple[int, int], overlap: float, most: int
) -> None:
    pixels = np.random.default_rng(0).random((*size, 2), np.float32)
    picture = TiledPicture(pixels, tile, overlap)
    assert picture.shape == size
    groups = list(picture.groups(most))
    assert [number for group in groups for number in group] == list(range(len(picture)))
    across = len(picture.axes[1].starts)
    assert all(len(group) <= max(most, across) for group in groups)
    assert {picture.samples(group).shape[1:] for group in groups} == {(*tile, 2)}
    np.testing.assert_allclose(joined(picture, most), pixels, atol=1e-5)


@given(st.integers(1, 300), st.integers(1, 60), st.floats(0, 0.9))
def test_neighbouring_tiles_overlap_by_the_share_at_least(size: int, tile: int, overlap: float) -> None:
    axis = TileAxis(size, tile, overlap)
    if size <= tile:
        assert len(axis.starts) == 1
        return
    assert (axis.starts[0], axis.starts[-1] + tile) == (0, size)
    common = [tile - (b - a) for a, b in pairwise(axis.starts)]
    assert all(c <= tile - 1 for c in common)
    assert all(c >= min(tile - 1, int(overlap * tile) - 1) for c in common)


def test_a_picture_of_the_size_of_a_tile_keeps_its_predictions_bit_for_bit() -> None:
    pixels = np.random.default_rng(1).random((9, 7, 3), np.float32)
    assert np.array_equal(joined(TiledPicture(pixels, (9, 7))), pixels)


def test_the_edges_of_a_tile_count_less_than_the_middle_of_its_neighbour() -> None:
    first, second = TileAxis(30, 20, 0.5).weights
    assert np.all(np.diff(first[10:]) < 0)  # falls towards its edge
    np.testing.assert_allclose(first[10:] + second[:10], 1.0, atol=1e-6)
    assert first[-1] < 10 * LOWEST
    assert np.all(first[:10] == 1.0)  # where no other tile is


def test_a_picture_that_is_smaller_in_one_direction_is_surrounded_by_its_border() -> None:
    pixels = np.arange(4 * 30).reshape(4, 30, 1).astype(np.uint8)
    picture = TiledPicture(pixels, (8, 10))
    tile = picture.samples(range(1))[0]
    assert np.array_equal(tile[:, 0, 0], [0, 0, 0, 30, 60, 90, 90, 90])


def test_a_resized_picture_is_brought_back_without_its_padding() -> None:
    ramp = np.linspace(0, 1, 8, dtype=np.float32)
    pixels = np.zeros((8, 8, 1), np.float32)
    pixels[2:6] = ramp[None, :, None]
    pixels[:2] = pixels[6:] = 9.0  # padding, which must not be seen
    found = joined(ResizedPicture(pixels, (100, 200), (2, 6, 0, 8)))
    assert found.shape == (100, 200, 1)
    assert np.all(np.diff(found[50, :, 0]) >= 0)
    np.testing.assert_allclose(found[:, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(found[0, [62, 137], 0], np.interp([62.5 / 25 - 0.5, 137.5 / 25 - 0.5], range(8), ramp))


def test_probabilities_stay_probabilities() -> None:
    rng = np.random.default_rng(2)
    logits = rng.random((50, 64, 5), np.float32)
    shares = logits / logits.sum(axis=-1, keepdims=True)
    for picture in (TiledPicture(shares, (20, 20)), ResizedPicture(shares, (90, 33), (3, 47, 0, 64))):
        np.testing.assert_allclose(joined(picture).sum(axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("overlap", [-0.1, 0.95, float("nan")])
def test_an_overlap_that_tiles_cannot_have_is_refused(overlap: float) -> None:
    with pytest.raises(DataError, match="must be a share of a tile"):
        check_overlap(overlap)
