"""Values of masks as classes, and arrays of masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ripieno.data.mask_classes import read_masks
from ripieno.data.raw_targets import RawTargets
from ripieno.errors import DataError
from ripieno.types import IGNORED


def read(
    *arrays: Any, names: list[str] | None = None, ignore: tuple[str, ...] = ()
) -> tuple[list[np.ndarray[Any, Any]], tuple[str, ...], list[str]]:
    notes: list[str] = []
    masks, found = read_masks([RawTargets(np.asarray(a), "the arrays") for a in arrays], names, ignore, notes)
    return masks, found, notes


def row(*values: int) -> np.ndarray[Any, Any]:
    """One mask of one line."""
    return np.array([[values]], np.int64)


def error_of(*arrays: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(*arrays, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_are_the_names_without_names() -> None:
    masks, names, notes = read(row(0, 1), row(2, 1))
    assert (masks[0].tolist(), masks[1].tolist(), names, notes) == ([[[0, 1]]], [[[2, 1]]], ("0", "1", "2"), [])


def test_values_with_gaps_become_classes_in_order_and_a_note_says_so() -> None:
    masks, names, notes = read(row(7, 1, 0))
    assert (masks[0].tolist(), names) == ([[[2, 1, 0]]], ("0", "1", "7"))
    assert len(notes) == 1
    assert "0, 1, 7" in notes[0].replace("'", "")


def test_255_is_ignored() -> None:
    masks, names, _ = read(row(0, 1, 255))
    assert (masks[0].tolist(), names) == ([[[0, 1, IGNORED]]], ("0", "1"))


def test_masks_of_0_and_255_alone_have_two_classes() -> None:
    masks, names, _ = read(row(0, 255))
    assert (masks[0].tolist(), names) == ([[[0, 1]]], ("0", "255"))
    masks, names, _ = read(row(0, 255), names=["back", "front"])
    assert (masks[0].tolist(), names) == ([[[0, 1]]], ("back", "front"))
    assert "only the class '0'" in error_of(row(0, 255), ignore=("255",))
    assert read(row(0, 255), names=["back", "front"], ignore=("255",))[0][0].tolist() == [[[0, IGNORED]]]


@pytest.mark.parametrize("ignore", ["1", "void"])
def test_an_ignored_class_has_no_index_and_later_ones_move_up(ignore: str) -> None:
    masks, names, _ = read(row(0, 1, 2, 255), names=["sky", "void", "road"], ignore=(ignore,))
    assert (masks[0].tolist(), names) == ([[[0, IGNORED, 1, IGNORED]]], ("sky", "road"))


def test_an_ignored_value_beyond_the_names_is_allowed() -> None:
    masks, names, _ = read(row(0, 1, 11), names=["sky", "road"], ignore=("11",))
    assert (masks[0].tolist(), names) == ([[[0, 1, IGNORED]]], ("sky", "road"))


def test_a_value_beyond_the_names_is_refused() -> None:
    message = error_of(row(0, 1), row(0, 2), names=["sky", "road"])
    assert "sample 0, 2, but the data names 2 classes" in message
    assert "--ignore 2" in message


def test_an_unknown_name_is_refused() -> None:
    assert "ignore is 'vod'" in error_of(row(0, 1), names=["sky", "road"], ignore=("vod",))
    assert "ignore is '256'" in error_of(row(0, 1), ignore=("256",))


def test_negative_values_of_conventions_are_ignored_and_others_refused() -> None:
    assert read(row(0, 1, -1, -100))[0][0].tolist() == [[[0, 1, IGNORED, IGNORED]]]
    assert "-2, sample 0" in error_of(row(0, 1, -2))
    assert "256, sample 0" in error_of(row(0, 1, 256))
    assert "0.5, sample 0" in error_of(np.array([[[0, 0.5]]]))


def test_a_negative_value_is_no_class_beside_0_alone() -> None:
    masks, names, _ = read(row(0, -1), names=["sky", "road"])
    assert (masks[0].tolist(), names) == ([[[0, IGNORED]]], ("sky", "road"))
    assert "only the class '0'" in error_of(row(0, -100))


def test_indices_in_bytes_are_not_copied() -> None:
    given = np.array([[[0, 1, 255]]], np.uint8)
    assert read(given)[0][0] is given


@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 3, 4, 1)])
def test_an_axis_of_length_one_is_left_out(shape: tuple[int, ...]) -> None:
    assert read(np.arange(24).reshape(shape) % 2)[0][0].shape == (2, 3, 4)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 3, 3), (0, 2, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    assert f"shape {shape}" in error_of(np.zeros(shape, np.uint8))


def test_more_names_than_values_are_refused() -> None:
    names = [f"c{i}" for i in range(257)]
    assert error_of(row(0, 1), names=names, ignore=("c256",)) == "the data names 257 classes; masks hold at most 255"
