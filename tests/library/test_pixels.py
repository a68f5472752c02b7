"""A library of segmentations: half precision, likelihoods of counted pixels, and predictions in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.check import check_new, match_task, note_if_poor
from ripieno.library.diversity import disagreement
from ripieno.tasks import pixels
from ripieno.tasks.registry import TASKS, kind_of
from ripieno.types import IGNORED
from tests.pixel_members import TASK, fill_library, make_masks, make_member, predict_masks

KIND = kind_of(TASK)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read two samples at a time."""
    monkeypatch.setattr(pixels, "BLOCK", 2 * 6 * 8 * 3)


def test_predictions_are_kept_in_half_precision_with_the_likelihoods_of_counted_pixels(tmp_path: Path) -> None:
    library, masks = fill_library(tmp_path, 2), make_masks(12)
    kept = library.predictions("m0")
    assert kept.dtype == np.float16
    assert isinstance(kept, np.memmap)
    np.testing.assert_allclose(kept, predict_masks(masks, 2)[0], atol=1e-3)
    (row,) = library.true_class_mapped(["m0"])
    counted = masks != IGNORED
    expected = np.take_along_axis(np.asarray(kept), np.where(counted, masks, 0)[..., None], axis=-1)[..., 0][counted]
    assert row.dtype == np.float16
    assert np.array_equal(row, expected)
    assert -np.log(row.astype(np.float64)).mean() == pytest.approx(library.member("m0").loss, rel=1e-12)
    assert [m.id for m in library.members()] == ["m0", "m1"]


def test_a_pixel_without_probability_has_the_same_loss_on_disk_as_in_single_precision(tmp_path: Path) -> None:
    masks, predictions = make_masks(3), predict_masks(make_masks(3), 1)[0]
    predictions[..., 0], predictions[..., 1], predictions[..., 2] = 1e-9, 1 - 2e-9, 1e-9
    library = Library(tmp_path)
    library.add(make_member("sure", predictions, masks), predictions, masks)
    scored = KIND.scores(predictions, masks, TASK)["cross_entropy"]
    assert KIND.scores(library.predictions("sure"), masks, TASK)["cross_entropy"] == pytest.approx(scored, abs=1e-6)


def test_predictions_may_come_in_blocks(tmp_path: Path) -> None:
    library, masks = fill_library(tmp_path, 2, test=0), make_masks(5, 3)
    predictions = predict_masks(masks, 2)
    library.write_predictions("m0", "test", predictions[0], masks)
    library.write_predictions("m1", "test", iter([predictions[0][:1], predictions[0][1:4], predictions[0][4:]]), masks)
    assert np.array_equal(library.predictions("m0", "test"), library.predictions("m1", "test"))
    rows = library.true_class_mapped(["m0", "m1"], "test")
    assert np.array_equal(rows[0], rows[1])
    with pytest.raises(LibraryError, match="predictions of m0 are of 4 samples, must be of 5"):
        library.write_predictions("m0", "test", iter([predictions[0][:4]]), masks)
    assert len(library.predictions("m0", "test")) == 5


def test_other_masks_and_sizes_are_refused(tmp_path: Path) -> None:
    library, masks = fill_library(tmp_path, 1), make_masks(12)
    predictions = predict_masks(masks, 1)[0]
    other = masks.copy()
    other[11, 5, 7] = 0 if other[11, 5, 7] else 1
    with pytest.raises(LibraryError, match="all members of a library must be judged on the same samples"):
        library.add(make_member("x", predictions, other), predictions, other)
    with pytest.raises(LibraryError, match="x: predictions of 8 x 6 pixels, must be of 6 x 8"):
        library.add(make_member("x", predictions, masks), predictions.transpose(0, 2, 1, 3), masks)
    assert library.ids() == ["m0"]


def test_a_member_is_broken_if_its_files_disagree_with_the_masks(tmp_path: Path) -> None:
    library = fill_library(tmp_path, 2)
    np.save(library.member_path("m1") / "valid.npy", np.zeros((12, 6, 7, 3), np.float16))
    with pytest.warns(UserWarning, match=r"valid.npy has shape \(12, 6, 7, 3\), not \(12, 6, 8, 3\)"):
        assert [m.id for m in Library(tmp_path).members()] == ["m0"]


def test_diversity_is_the_share_of_counted_pixels(tmp_path: Path) -> None:
    library, counted = fill_library(tmp_path, 2), make_masks(12) != IGNORED
    ours, theirs = (np.asarray(library.predictions(m)).argmax(axis=-1)[counted] for m in ("m0", "m1"))
    assert disagreement(library) == pytest.approx(dict.fromkeys(("m0", "m1"), (ours != theirs).mean()))


def test_diversity_of_many_pixels_is_that_of_some_rows_of_each_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, masks = fill_library(tmp_path, 3), make_masks(12)
    whole = disagreement(library)
    monkeypatch.setattr("ripieno.tasks.segmentation.COMPARED", masks.size // 3)
    counted = masks[:, 1::3] != IGNORED
    ours, theirs, last = (library.predictions(m)[:, 1::3].argmax(axis=-1)[counted] for m in ("m0", "m1", "m2"))
    found = disagreement(library)
    assert found["m0"] == pytest.approx(((ours != theirs).mean() + (ours != last).mean()) / 2)
    assert found != whole
    assert found == pytest.approx(whole, abs=0.15)


def test_classes_in_another_order_and_poor_predictions_are_noted() -> None:
    masks = make_masks(12)
    right = predict_masks(masks, 1)[0]
    assert note_if_poor(masks, right, "net", TASK) is None
    note = note_if_poor(masks, right[..., [1, 2, 0]], "net", TASK)
    assert note is not None
    assert "pixels, but for" in note
    assert "the classes road, tree, sky; reorder them" in note
    reverse = np.roll(right, 1, axis=-1) * 0.2 + np.roll(right, 2, axis=-1) * 0.8
    mixed = np.where(np.arange(12).reshape(-1, 1, 1, 1) % 2 > 0, reverse, np.roll(right, 1, axis=-1))
    poor = note_if_poor(masks, mixed, "net", TASK)
    assert poor is not None
    assert "alone for" in poor


def test_a_copy_of_a_member_is_found_and_a_change_in_the_last_pixel_is_none(tmp_path: Path) -> None:
    library = fill_library(tmp_path, 1)
    same = np.array(library.predictions("m0"), np.float32)
    with pytest.raises(LibraryError, match="copy has exactly the predictions of m0"):
        check_new({"copy": same}, library)
    same[-1, -1, -1] = same[-1, -1, -1, ::-1]
    check_new({"copy": same}, library)


def test_a_task_of_imported_predictions_has_their_size(tmp_path: Path) -> None:
    found = match_task(TASKS["segmentation"], ["a", "b"], 2, Library(tmp_path), (6, 8))
    assert found.output == (6, 8, 2)
