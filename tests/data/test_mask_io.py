"""Files of masks, and masks at the size of their pictures."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ripieno.data.image_io import read_pixels
from ripieno.data.mask_io import fit_mask, read_mask, resize_masks
from ripieno.data.prediction_inputs import load_image
from ripieno.errors import DataError
from ripieno.types import IGNORED, Input

VALUES = np.array([[0, 1, 2], [3, 7, 15]], np.uint8)


def saved(path: Path, image: Image.Image, **options: int) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_grey_files_hold_the_indices(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(VALUES))
    assert np.array_equal(read_mask(path), VALUES)


@pytest.mark.parametrize("bits", [4, 8])
def test_indexed_files_hold_indices_whatever_the_palette(tmp_path: Path, bits: int) -> None:
    image = Image.fromarray(VALUES, "P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 3 << bits).tolist())
    path = saved(tmp_path / "a.png", image, bits=bits)
    assert np.array_equal(read_mask(path), VALUES)


def test_grey_of_four_bits_is_not_spread_over_a_byte(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes([(a << 4) | b, c << 4]) for a, b, c in VALUES.tolist())
    header = struct.pack(">IIBBBBB", 3, 2, 4, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
    assert np.array_equal(read_mask(tmp_path / "a.png"), VALUES)


def test_one_bit_is_0_and_1(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1"))
    assert read_mask(path).tolist() == [[0, 1]]


def test_16_bits_must_fit_a_byte(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(VALUES.astype(np.uint16)))
    assert np.array_equal(read_mask(path), VALUES)
    path = saved(tmp_path / "b.png", Image.fromarray(VALUES.astype(np.uint16) * 100))
    with pytest.raises(DataError, match="values of 0 to 1500"):
        read_mask(path)


def test_colours_are_classes_where_they_are_known(tmp_path: Path) -> None:
    pixels = np.array([[[9, 8, 7], [0, 0, 0]], [[1, 2, 3], [0, 0, 0]]], np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    assert read_mask(path, [(0, 0, 0), (1, 2, 3), (9, 8, 7)]).tolist() == [[2, 0], [1, 0]]
    with pytest.raises(DataError, match="the colour 9, 8, 7"):
        read_mask(path, [(0, 0, 0), (1, 2, 3)])
    with pytest.raises(DataError, match="is in colour"):
        read_mask(path)


def test_grey_saved_in_colour_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(VALUES).convert("RGB"))
    assert np.array_equal(read_mask(path), VALUES)


def test_a_format_that_changes_values_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(VALUES))
    with pytest.raises(DataError, match="is a JPEG, which changes"):
        read_mask(path)


@pytest.mark.parametrize("size", [(20, 30), (31, 20), (20, 20), (7, 40)])
def test_masks_are_padded_as_their_pictures(size: tuple[int, int]) -> None:
    height, width = size
    mask = np.kron(np.arange(4, dtype=np.uint8).reshape(2, 2), np.ones((20, 20), np.uint8))[:height, :width]
    picture = read_pixels(Image.fromarray(mask * 60), "grey", 16)[..., 0]
    small = fit_mask(mask, 16, 16)
    inside = small != IGNORED
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert len(rows) == max(1, round(16 * height / max(size)))
    assert len(columns) == max(1, round(16 * width / max(size)))
    # most pixels are not at an edge, where the picture is between two values
    assert (picture[inside] == small[inside] * 60).mean() > 0.6
    assert np.array_equal(resize_masks(mask[None], 16)[0], small)


def test_masks_are_stretched_as_pictures_for_inputs_that_are_not_square() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 10:] = 1
    picture = load_image(Image.fromarray(mask * 255), Input((8, 16, 1), range=(0, 255)))
    small = fit_mask(mask, 8, 16)
    assert small.shape == (8, 16)
    assert np.array_equal(small == 1, picture[..., 0] > 127)


def test_a_mask_of_the_size_is_not_copied() -> None:
    assert fit_mask(VALUES, 2, 3) is VALUES


def test_a_smaller_or_larger_mask_holds_no_other_classes() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 200], np.uint8), (20, 20))
    for size in (13, 47):
        assert set(np.unique(fit_mask(mask, size, size))) == {0, 200}
