"""Selection by pixels: what is selected by is what is scored, images are the samples, and samples of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ripieno.errors import SelectionError
from ripieno.selection import pixel_data, select_members
from ripieno.selection.select import front
from ripieno.tasks import pixel_calibration
from ripieno.tasks.calibration import fit_temperature
from ripieno.tasks.pixels import sample_rows
from ripieno.tasks.registry import kind_of
from ripieno.types import IGNORED, Task
from tests.pixel_members import TASK, make_masks, predict_masks

MASKS = make_masks(20)
MEMBERS = predict_masks(MASKS, 6).astype(np.float16)
KIND = kind_of(TASK)


def select(*arguments: Any, **options: Any) -> Any:
    return select_members(*arguments, **{"task": TASK, "prune": 1.0, "budget": 3, "calibrate": "none", **options})


@pytest.mark.parametrize("loss", ["cross-entropy", "mean-iou"])
@pytest.mark.parametrize("pixels", [None, 12])
def test_members_are_selected_at_their_temperatures_and_the_loss_is_that_of_what_is_served(
    loss: str, pixels: int | None
) -> None:
    """The temperatures of the members are far from 1; all pixels are in the sample that these are fitted to."""
    choice = select(list(MEMBERS), MASKS, loss=loss, pixels=pixels, calibrate=None)
    plain = select(list(MEMBERS), MASKS, loss=loss, pixels=pixels)
    assert all(t != 1 for t in choice.temperatures)
    assert set(plain.temperatures) == {1.0}
    scores, before = (KIND.scores(c.combine(MEMBERS), MASKS, TASK) for c in (choice, plain))
    assert scores["cross_entropy"] < before["cross_entropy"] - 0.02
    found = scores[loss.replace("-", "_")]
    served = found if loss == "cross-entropy" else 1 - found
    assert choice.loss == pytest.approx(served, abs=1e-3 if pixels is None else 0.06)
    assert choice.expected_loss == pytest.approx(served, abs=5 * choice.expected_loss_error)


def test_temperatures_are_fitted_to_a_sample_of_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = select(list(MEMBERS), MASKS, calibrate="members")
    monkeypatch.setattr(pixel_calibration, "SAMPLED", 20 * 20)
    sample = pixel_calibration.sample_pixels(MASKS)
    choice = select(list(MEMBERS), MASKS, calibrate="members")
    drawn = [sample.read(own) for own in MEMBERS]
    fitted = [fit_temperature(own, sample.classes, kind=KIND) for own in drawn]
    assert choice.temperatures == tuple(fitted[m] for m in choice.members)
    assert choice.temperatures != whole.temperatures
    assert choice.loss == pytest.approx(KIND.scores(choice.combine(MEMBERS), MASKS, TASK)["cross_entropy"], abs=0.01)
    # memory for fewer of them: the temperatures stay
    monkeypatch.setattr(pixel_data, "IN_MEMORY", 20 * 10 * 3 * 6)
    fewer = select(list(MEMBERS), MASKS, calibrate="members")
    assert fewer.expected_loss != choice.expected_loss
    assert fewer.expected_loss == pytest.approx(choice.expected_loss, abs=3 * choice.expected_loss_error)


def test_votes_are_calibrated_where_it_is_asked_for() -> None:
    choice = select(list(MEMBERS), MASKS, combiner="vote", calibrate="members")
    assert choice.loss == pytest.approx(KIND.scores(choice.combine(MEMBERS), MASKS, TASK)["cross_entropy"], abs=2e-3)
    assert set(select(list(MEMBERS), MASKS, combiner="vote", calibrate=None).temperatures) == {1.0}


@pytest.mark.parametrize("loss", ["cross-entropy", "mean-iou", "mean-dice", "pixel-accuracy"])
@pytest.mark.parametrize("combiner", ["mean", "vote"])
def test_the_loss_is_that_of_what_is_served_on_all_counted_pixels(loss: str, combiner: Any) -> None:
    choice = select(list(MEMBERS), MASKS, loss=loss, combiner=combiner)
    scores = KIND.scores(choice.combine(MEMBERS), MASKS, TASK)
    found = scores[loss.replace("-", "_")]
    assert choice.loss == pytest.approx(found if loss == "cross-entropy" else 1 - found, abs=2e-6)
    assert choice.expected_loss is not None
    assert choice.expected_loss == pytest.approx(choice.loss, abs=5 * choice.expected_loss_error)


def test_likelihoods_and_probabilities_give_the_same_ensemble_as_a_classification_of_pixels() -> None:
    counted = MASKS != IGNORED
    rows = [KIND.likelihood(p, MASKS) for p in MEMBERS]
    wide, narrow = select(list(MEMBERS), MASKS), select(rows, MASKS)
    flat = select_members(MEMBERS[:, counted], MASKS[counted], prune=1.0, budget=3, calibrate="none", cv=0)
    assert wide.members == narrow.members == flat.members
    assert wide.loss == narrow.loss == pytest.approx(flat.loss, abs=1e-6)
    assert (wide.expected_loss, wide.expected_loss_error) == (narrow.expected_loss, narrow.expected_loss_error)


def test_the_uncertainty_of_the_expected_loss_is_by_images_not_by_pixels() -> None:
    repeated, wide = np.repeat(MASKS, 4, axis=2), np.repeat(MEMBERS, 4, axis=3)
    task = Task("segmentation", (6, 32, 3), TASK.names)
    once, more = select(list(MEMBERS), MASKS), select(list(wide), repeated, task=task)
    assert more.expected_loss == pytest.approx(once.expected_loss, rel=1e-6)
    assert more.expected_loss_error == pytest.approx(once.expected_loss_error, rel=1e-5)
    # by 20 images, not by 20 x 48 pixels
    combined = once.combine(MEMBERS)
    images = [KIND.scores(combined[i : i + 1], MASKS[i : i + 1], TASK)["cross_entropy"] for i in range(20)]
    assert once.expected_loss_error == pytest.approx(np.std(images, ddof=1) / 20**0.5, rel=0.3)


def test_a_sample_holds_so_many_pixels_of_each_image_in_their_order() -> None:
    images = np.array([5, 0, 3, 100])
    rows, counts = sample_rows(images, 4)
    assert rows is not None
    assert counts.tolist() == [4, 0, 3, 4]
    assert np.array_equal(rows, np.unique(rows))
    assert np.histogram(rows, [0, 5, 8, 108])[0].tolist() == [4, 3, 4]
    again = sample_rows(images, 4)[0]
    assert np.array_equal(rows, again)
    assert sample_rows(images, 100)[0] is None
    assert sample_rows(images, None)[0] is None


def test_a_selection_by_a_sample_has_the_loss_of_the_sample() -> None:
    rows = [KIND.likelihood(p, MASKS) for p in MEMBERS]
    places, _ = sample_rows((MASKS != IGNORED).sum(axis=(1, 2)), 10)
    for predictions in (list(MEMBERS), rows):
        choice = select(predictions, MASKS, pixels=10)
        mean = sum(w * rows[m].astype(np.float64)[places] for m, w in zip(choice.members, choice.weights, strict=True))
        assert choice.loss == pytest.approx(-np.log(mean).mean(), abs=1e-6)
        assert choice.loss != select(predictions, MASKS).loss
    assert select(list(MEMBERS), MASKS, pixels=48).loss == select(rows, MASKS).loss
    assert 0 < select(list(MEMBERS), MASKS, pixels=10, loss="mean-iou").loss < 1


def test_the_expected_loss_of_many_pixels_is_that_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = select(list(MEMBERS), MASKS)
    monkeypatch.setattr("ripieno.selection.cross_validation.PIXELS", 20 * 20)
    thinned = select(list(MEMBERS), MASKS)
    assert thinned.loss == whole.loss
    assert thinned.expected_loss != whole.expected_loss
    assert thinned.expected_loss == pytest.approx(whole.expected_loss, abs=3 * whole.expected_loss_error)


def test_an_image_without_counted_pixels_is_no_obstacle() -> None:
    masks = MASKS.copy()
    masks[3] = IGNORED
    choice = select(list(MEMBERS), masks)
    assert choice.expected_loss == pytest.approx(choice.loss, abs=5 * choice.expected_loss_error)
    with pytest.raises(SelectionError, match="all pixels of the masks are ignored"):
        select(list(MEMBERS), np.full_like(masks, IGNORED))


def test_mapped_likelihoods_are_read_in_blocks(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for number, own in enumerate(MEMBERS):
        np.save(tmp_path / f"{number}.npy", KIND.likelihood(own, MASKS))
        rows.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    whole = select(rows, MASKS)
    monkeypatch.setattr("ripieno.selection.problem_builder.IN_MEMORY", 10)
    blocked = select(rows, MASKS)
    assert blocked.members == whole.members
    assert blocked.loss == pytest.approx(whole.loss, abs=1e-6)


def test_a_front_falls_and_needs_no_task_object() -> None:
    found = front(list(MEMBERS), MASKS, task="segmentation", costs=[1, 2, 1, 2, 1, 2], points=5)
    losses = [choice.loss for choice in found]
    assert losses == sorted(losses, reverse=True)
    assert found[-1].task == "segmentation"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"calibrate": "joint"}, "calibrate joint does not fit task segmentation: pass calibrate members or none"),
        ({"targets": None}, "needs targets: pass the masks"),
        ({"targets": MASKS[:, :5]}, r"masks have shape \(20, 5, 8\): expected \(20, 6, 8\)"),
        ({"targets": MASKS[:, :5], "task": "segmentation"}, "masks are 5 x 8 pixels, expected 6 x 8"),
        ({"predictions": [MEMBERS[0][..., 0].reshape(-1)]}, "likelihoods are of 960 pixels per member, but the masks"),
        ({"predictions": [MEMBERS[0][0]]}, r"expected \(members, counted pixels\) or \(members, samples, height"),
        ({"loss": "macro-f1"}, "loss macro-f1 does not fit task segmentation: expected one of cross-entropy, mean-iou"),
        ({"combiner": "median"}, "combiner 'median' does not fit task segmentation"),
        (
            {"predictions": [KIND.likelihood(MEMBERS[0], MASKS)], "calibrate": "members"},
            "calibrate members needs labels",
        ),
        ({"pixels": 0}, "pixels 0 is invalid"),
        ({"pixels": 1.5}, "pixels 1.5 is invalid"),
        ({"predictions": [MEMBERS[0] * np.float16(2)]}, "member 0: a prediction is"),
    ],
)
def test_what_cannot_be_selected_by_is_one_line(change: dict[str, Any], words: str) -> None:
    given = {"predictions": list(MEMBERS), "targets": MASKS, **change}
    with pytest.raises(SelectionError, match=words) as caught:
        select(given.pop("predictions"), given.pop("targets"), **given)
    assert "\n" not in str(caught.value)


def test_likelihoods_are_too_little_for_scores_and_votes() -> None:
    rows = [KIND.likelihood(p, MASKS) for p in MEMBERS]
    with pytest.raises(SelectionError, match="loss mean-iou needs masks and predictions"):
        select(rows, MASKS, loss="mean-iou")
    with pytest.raises(SelectionError, match="combiner vote needs masks and predictions"):
        select(rows, MASKS, combiner="vote")


def test_scores_of_too_many_pixels_are_refused_with_a_number_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_data, "IN_MEMORY", 20 * 6 * 3 * 9)
    with pytest.raises(SelectionError, match=r"loss mean-iou of 878 pixels, 6 members .*: pass pixels 9 or less"):
        select(list(MEMBERS), MASKS, loss="mean-iou")
    assert select(list(MEMBERS), MASKS, loss="mean-iou", pixels=9).loss > 0


def test_pixels_are_those_of_segmentations_only() -> None:
    with pytest.raises(SelectionError, match="pixels does not fit task classification"):
        select_members(np.full((2, 5), 0.5), pixels=3)
