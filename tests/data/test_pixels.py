"""One rule for the layout, type and range of pixels: in training data and in all images to predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno import files
from ripieno.data import load_dataset, open_dataset, write_dataset
from ripieno.data.pixels import channels_first, differ, fit_array, random_images
from ripieno.errors import DataError
from ripieno.types import Column, Input

CODES = np.arange(40) % 4
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), np.uint8)
BYTES = Input((8, 6, 3), "uint8", (0.0, 255.0))
UNIT = Input((8, 6, 3), "float32", (0.0, 1.0))
DEEP = Input((8, 6, 1), "float32", (0.0, 4000.0))


# layout


@pytest.mark.parametrize(
    "shape",
    [(4, 32, 32), (10, 32, 32), (2, 24, 24), (1, 28, 28), (3, 20, 30), (3, 30, 20), (10, 24, 32), (64, 8, 8)],
)
def test_channels_are_found_first_and_the_same_images_channels_last(shape: tuple[int, int, int]) -> None:
    assert channels_first(shape) == (True, True)
    assert channels_first((*shape[1:], shape[0])) == (False, True)


@pytest.mark.parametrize("channels", [2, 4, 10])
def test_arrays_with_channels_first_are_read_so_and_noted(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, channels, 16, 16), np.uint8)
    notes: list[str] = []
    dataset = load_dataset((images, CODES), notes=notes)
    assert np.array_equal(dataset.inputs, images.transpose(0, 2, 3, 1))
    assert any("channels first" in note for note in notes)


def test_a_layout_in_doubt_is_read_as_channels_last_and_noted() -> None:
    notes: list[str] = []
    dataset = load_dataset((np.zeros((40, 3, 32, 3), np.uint8), CODES), notes=notes)
    assert dataset.input.shape == (3, 32, 3)
    assert any("read as channels last, 3 channels" in note for note in notes)


def test_masked_pixels_are_refused_in_training_and_predicting() -> None:
    masked = np.ma.masked_greater(PIXELS, 250)
    with pytest.raises(DataError, match="masked pixels"):
        load_dataset((masked, CODES))
    with pytest.raises(DataError, match="masked pixels"):
        fit_array(masked, BYTES)


# range


@pytest.mark.parametrize(
    ("given", "trained", "other"),
    [
        ((0, 255), (0, 1), True),
        ((0, 1), (0, 255), True),
        ((0, 1), (0, 16), True),
        ((0, 240), (0, 16), True),
        ((0, 65535), (0, 255), True),
        ((-1, 1), (0, 1), True),
        ((-2.1, 2.6), (0, 255), True),
        ((0, 255), (-2.1, 2.6), True),
        ((0, 0), (0, 255), False),
        ((0, 31), (0, 255), False),
        ((0, 255), (0, 90), False),
        ((0, 0.01), (0, 1), False),
        ((-0.02, 1.02), (0, 1), False),
        ((0, 30000), (0, 65535), False),
        ((-1, 4), (-2.1, 2.6), False),
    ],
)
def test_ranges_of_another_unit_are_told_from_dark_and_bright_images(
    given: tuple[float, float], trained: tuple[float, float], other: bool
) -> None:
    assert differ(given, trained) is other


@pytest.mark.parametrize("factor", [1 / 255, 257])
def test_a_split_in_another_range_is_refused(factor: float, tmp_path: Path) -> None:
    images = PIXELS.astype(np.float32)
    for train, test in ((images, images * factor), (images * factor, images)):
        np.savez(tmp_path / "x.npz", x_train=train, y_train=CODES, x_test=test, y_test=CODES)
        with pytest.raises(DataError, match=r"range over .* in the train split but over .* in the test split"):
            load_dataset(tmp_path / "x.npz")


def test_a_split_of_masks_beside_one_of_bytes_is_refused() -> None:
    with pytest.raises(DataError, match="in the valid split"):
        load_dataset({"train": (PIXELS, CODES), "valid": (PIXELS > 100, CODES)})


def test_one_outlier_makes_no_other_range() -> None:
    images = PIXELS / np.float32(255)
    wild = images.copy()
    wild[0, 0, 0, 0] = 1e4
    assert load_dataset({"train": (wild, CODES), "test": (images, CODES)}).range == (0.0, 1e4)


def test_images_of_two_ranges_in_one_array_are_noted() -> None:
    images = PIXELS.astype(np.float32)
    images[[3, 5]] /= 255
    notes: list[str] = []
    load_dataset((images, CODES), notes=notes)
    note = "2 images are within 0 to 1, the first is image 3, but the largest pixel of all is 255"
    assert any(note in line for line in notes)


def test_the_range_of_the_training_images_is_kept_with_the_data_set(tmp_path: Path) -> None:
    images = PIXELS.astype(np.float32)
    dataset = load_dataset({"train": (images / 2, CODES), "test": (images, CODES)})
    assert dataset.range == dataset.input.range == (0.0, 127.5)
    write_dataset(dataset, tmp_path / "data")
    assert open_dataset(tmp_path / "data").input.range == (0.0, 127.5)


def test_a_data_set_of_an_older_version_has_no_range_and_gets_one_when_it_is_prepared_again(tmp_path: Path) -> None:
    write_dataset(load_dataset((PIXELS, CODES)), tmp_path / "data")
    sheet = files.read_json(tmp_path / "data" / "dataset.json", dict[str, Any])
    del sheet["range"]
    files.write_json(tmp_path / "data" / "dataset.json", sheet)
    assert open_dataset(tmp_path / "data").range is None
    assert load_dataset(tmp_path / "data").range == (0.0, 255.0)


def test_columns_of_a_table_have_no_common_range() -> None:
    table = np.random.default_rng(0).normal(size=(40, 1, 1, 9)).astype(np.float32)
    assert load_dataset((table, CODES)).range is None


@pytest.mark.parametrize("size", [99_999, 4097, 0, -1, 8.5, True, "8"])
def test_a_size_that_no_image_can_have_is_refused_before_anything_is_read(size: object) -> None:
    with pytest.raises(DataError, match=r"size is .*: it must be a number of pixels, 1 to 4,096"):
        load_dataset("nowhere", size=size)  # type: ignore[arg-type]


# arrays to predict


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x.transpose(0, 3, 1, 2),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.uint16),
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.float64),
        lambda x: x.tolist(),
    ],
    ids=["channels first", "int64", "uint16", "float32", "float64", "lists"],
)
def test_bytes_in_any_form_are_the_same_bytes(form) -> None:
    found = fit_array(form(PIXELS), BYTES)
    assert found.dtype == np.uint8
    assert np.array_equal(found, PIXELS)


def test_booleans_are_black_and_white() -> None:
    assert np.array_equal(fit_array(PIXELS > 99, BYTES), np.where(PIXELS > 99, 255, 0))


def test_one_sample_is_a_batch_of_one_and_grey_needs_no_channel() -> None:
    assert fit_array(PIXELS[0], BYTES).shape == (1, 8, 6, 3)
    assert fit_array(PIXELS[0].transpose(2, 0, 1), BYTES).shape == (1, 8, 6, 3)
    grey = Input((8, 6, 1))
    assert fit_array(PIXELS[..., 0], grey).shape == (40, 8, 6, 1)
    assert fit_array(PIXELS[0, ..., 0], grey).shape == (1, 8, 6, 1)


@pytest.mark.parametrize(
    ("images", "wanted", "says"),
    [
        (PIXELS / 255, BYTES, "other values than the whole numbers 0 to 255"),
        ((PIXELS > 99).astype(np.float32), BYTES, "images range over 0 to 1, but the network was trained on 0 to 255"),
        (PIXELS * 257.0, BYTES, "other values than the whole numbers 0 to 255"),
        (PIXELS.astype(np.int64) - 128, BYTES, "other values than the whole numbers 0 to 255"),
        (PIXELS, UNIT, "images are uint8, but the network was trained on float32 of 0 to 1; scale"),
        (PIXELS % 2, UNIT, "images are uint8, but the network was trained on float32 of 0 to 1; scale"),
        (PIXELS.astype(np.float32), UNIT, "range over 0 to 255, but the network was trained on 0 to 1"),
        (PIXELS.astype(np.float32) / 127.5 - 1, UNIT, "range over -1 to 1, but the network was trained on 0 to 1"),
        (PIXELS[..., :1], DEEP, "images are uint8, but the network was trained on float32 of 0 to 4000"),
        (PIXELS[..., :1] / 255, DEEP, "range over 0 to 1, but the network was trained on 0 to 4000"),
        (PIXELS, Input((8, 6, 3), "uint8", (0.0, 1.0)), "range over 0 to 255, but the network was trained on 0 to 1"),
        (np.full((2, 8, 6, 3), np.nan, np.float32), UNIT, "NaN or infinite"),
        (np.full((2, 8, 6, 3), 1e300), UNIT, "NaN or infinite"),
        (PIXELS, Input((8, 6, 3), "float32"), "images are uint8, must be float32"),
        (PIXELS.astype(str), BYTES, "must be uint8"),
        (PIXELS[:, :5], BYTES, r"shape \(40, 5, 6, 3\), must be \(samples, 8, 6, 3\) uint8"),
        ([[1, 2], [3]], BYTES, "are no array"),
    ],
)
def test_arrays_of_another_form_or_range_are_refused(images, wanted: Input, says: str) -> None:
    with pytest.raises(DataError, match=says):
        fit_array(images, wanted)


def test_whole_numbers_of_the_range_trained_on_become_floats() -> None:
    deep = PIXELS[..., :1].astype(np.uint16) * 15
    assert np.array_equal(fit_array(deep, DEEP), deep)
    assert fit_array(PIXELS, Input((8, 6, 3), "float32", (0.0, 255.0))).dtype == np.float32


@pytest.mark.parametrize("wanted", [BYTES, UNIT, DEEP])
def test_a_black_image_is_of_every_range(wanted: Input) -> None:
    black = np.zeros((1, *wanted.shape), wanted.dtype)
    assert np.array_equal(fit_array(black, wanted), black)


@pytest.mark.parametrize("wanted", [BYTES, UNIT, DEEP, Input((2, 2, 1), "uint8", (0.0, 16.0)), Input((4, 4, 1))])
def test_noise_for_benchmarks_is_of_the_range_trained_on(wanted: Input) -> None:
    noise = random_images(wanted, 9)
    assert fit_array(noise, wanted) is noise
    assert (noise.shape, str(noise.dtype)) == ((9, *wanted.shape), wanted.dtype)
    assert np.array_equal(noise, random_images(wanted, 9))
    assert not np.array_equal(noise, random_images(wanted, 9, seed=1))


def test_noise_of_tables_has_categories() -> None:
    columns = (Column("a"), Column("b", "category", ("x", "y", "z")), Column("c", "date", parts=("month", "age")))
    noise = random_images(Input((4,), "float32", columns=columns), 50)
    assert (noise.shape, noise.dtype) == ((50, 4), np.float32)
    assert set(noise[:, 1].tolist()) == {-1, 0, 1, 2}
