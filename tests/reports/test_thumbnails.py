"""Thumbnails: limited in number and bytes, for every kind of image."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ripieno.reports.thumbnails import pick, thumbnails
from ripieno.types import Dataset, classification


def dataset(images: np.ndarray) -> Dataset:
    channels = images.shape[-1]
    zeros = np.zeros(len(images), dtype=np.int64)
    mean, std = (float(images.mean()),) * channels, (float(images.std()) + 1e-9,) * channels
    return Dataset("x", images, zeros, zeros.astype(np.uint8), classification(("a", "b")), mean, std, path=Path())


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_the_first_of_every_list_comes_before_the_second_of_any() -> None:
    assert pick([[1, 2, 3], [4, 1], [5]], most=4) == (1, 4, 5, 2)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_images_of_any_channels_and_kind_become_pictures(channels: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    images = (rng.random((2, 20, 30, channels)) * (255 if kind == "uint8" else 1)).astype(kind)
    found = thumbnails(dataset(images), [1])
    assert opened(found[1]).size == (30, 20)


def test_a_small_image_keeps_every_pixel() -> None:
    images = np.random.default_rng(0).integers(0, 255, (1, 8, 8, 3), dtype=np.uint8)
    assert (np.asarray(opened(thumbnails(dataset(images), [0])[0])) == images[0]).all()


def test_large_images_are_made_small() -> None:
    images = np.zeros((1, 200, 100, 3), dtype=np.uint8)
    assert opened(thumbnails(dataset(images), [0])[0]).size == (32, 64)


def test_pictures_end_where_the_bytes_end() -> None:
    images = np.random.default_rng(0).integers(0, 255, (50, 32, 32, 3), dtype=np.uint8)
    found = thumbnails(dataset(images), range(50), most=20_000)
    assert 0 < len(found) < 50
    assert sum(map(len, found.values())) <= 20_000
    assert list(found) == list(range(len(found)))
