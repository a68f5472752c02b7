from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ripieno.data import load_dataset
from ripieno.data.augmentation_check import find_unfit
from ripieno.types import Dataset


@pytest.fixture(scope="module")
def digits() -> Dataset:
    source = load_digits()
    return load_dataset(((source.images[:, :, :, None] * 15).astype(np.uint8), source.target))


def names(dataset: Dataset) -> list[str]:
    return [unfit.name for unfit in find_unfit(dataset)]


def blobs(side: int = 20, samples: int = 600, channels: int = 3) -> Dataset:
    """Return squares of two sizes anywhere in the image: mirrored and turned, they are what they were."""
    draws = np.random.default_rng(0)
    images = draws.integers(0, 40, (samples, side, side, channels)).astype(np.uint8)
    labels = np.arange(samples) % 2
    for image, label in zip(images, labels, strict=True):
        size = 4 + 6 * label
        top, left = draws.integers(0, side - size, 2)
        image[top : top + size, left : left + size] = draws.integers(150, 255, channels)
    return load_dataset((images, labels))


def test_digits_bear_neither_flips_nor_rotations_nor_colours(digits):
    found = find_unfit(digits)
    assert [unfit.name for unfit in found] == ["colour", "flip", "rotate"]
    assert found[1].reason.startswith("mirrored training images are recognised ")
    assert 20 < int(found[1].reason.split()[5]) < 50
    assert found == find_unfit(digits)


def test_images_that_stay_what_they_are_bear_all():
    assert names(blobs()) == []
    assert names(blobs(side=41)) == []  # a thumbnail leaves out a border


def test_grey_images_in_three_channels_are_not_in_colour():
    dataset = blobs()
    grey = dataclasses.replace(dataset, inputs=np.repeat(dataset.inputs[..., :1], 3, axis=3))
    assert names(grey) == ["colour"]
    assert names(blobs(channels=5)) == ["colour"]


def test_an_arrow_is_flipped_to_another_class_where_left_and_right_are_two():
    draws = np.random.default_rng(0)
    images = draws.integers(0, 60, (400, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(400) % 2
    images[labels == 0, 6:10, :6] += 150
    images[labels == 1, 6:10, 10:] += 150
    assert names(load_dataset((images, labels))) == ["flip", "rotate"]


def test_labels_at_random_decide_nothing():
    draws = np.random.default_rng(0)
    images = draws.integers(0, 255, (500, 8, 8, 3)).astype(np.uint8)
    assert names(load_dataset((images, draws.integers(0, 10, 500)))) == []


def test_other_tasks_and_few_images_are_not_checked_for_flips(digits):
    numbers = load_dataset((np.asarray(digits.inputs), digits.targets + 0.5), task="regression")
    assert names(numbers) == ["colour"]
    few = load_dataset((np.asarray(digits.inputs[:80]), np.asarray(digits.targets[:80])))  # of few, chance may decide
    assert names(few) == ["colour"]


def test_series_are_not_checked():
    series = np.random.default_rng(0).normal(size=(40, 30, 2)).astype(np.float32)
    assert names(load_dataset((series, np.arange(40) % 2), kind="series")) == []
