"""A bundle's masks compared with those of a data set: figures of all pixels, intervals over images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from numpy.typing import NDArray

import ripieno
from ripieno.pipeline.evaluation import BundleEvaluation
from ripieno.tasks import pixels
from ripieno.tasks.conformal import fit_coverage, prediction_set, share_held
from ripieno.types import IGNORED, Bundle
from tests.server.stand_in import CLASSES, direct_answers, write_mask_bundle

SHAPE = (8, 12, 3)
COUNT = 25


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_mask_bundle(tmp_path_factory.mktemp("masks"), SHAPE)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def probabilities(bundle: Bundle, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return direct_answers(bundle, images).mean(axis=0)


@pytest.fixture(scope="module")
def masks(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Masks that are right for most pixels, with some ignored."""
    rng = np.random.default_rng(1)
    found = probabilities.argmax(axis=-1).astype(np.uint8)
    wrong = rng.random(found.shape) < np.linspace(0.1, 0.5, COUNT)[:, None, None]
    found[wrong] = rng.integers(0, len(CLASSES), int(wrong.sum()))
    found[rng.random(found.shape) < 0.1] = IGNORED
    return found


@pytest.fixture(scope="module")
def found(bundle: Bundle, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> BundleEvaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "BLOCK", 3 * 8 * 12 * len(CLASSES))
        return ripieno.evaluate(bundle, (images, masks))


def test_scores_and_rows_are_scikit_learns_on_the_counted_pixels(
    found: BundleEvaluation, masks: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> None:
    counted = masks != IGNORED
    truth, rows = masks[counted], probabilities[counted].astype(np.float64)
    answers = rows.argmax(axis=1)
    values = {name: score.value for name, score in found.scores.items()}
    assert values == pytest.approx(
        {
            "cross_entropy": -np.log(rows[np.arange(len(truth)), truth]).mean(),
            "mean_iou": sklearn.metrics.jaccard_score(truth, answers, average="macro"),
            "mean_dice": sklearn.metrics.f1_score(truth, answers, average="macro"),
            "pixel_accuracy": (truth == answers).mean(),
        },
        rel=1e-5,
    )
    assert [row["class"] for row in found.rows] == list(CLASSES)
    assert [row["IoU"] for row in found.rows] == pytest.approx(
        sklearn.metrics.jaccard_score(truth, answers, average=None)
    )
    assert [row["Dice"] for row in found.rows] == pytest.approx(sklearn.metrics.f1_score(truth, answers, average=None))
    assert np.array_equal(found.confusion(), sklearn.metrics.confusion_matrix(truth, answers))
    assert np.array_equal(found.predictions, probabilities.argmax(axis=-1))
    assert (found.samples, found.split, found.resamples) == (COUNT, "all", 1000)


def test_intervals_are_of_the_choice_of_images(
    found: BundleEvaluation, masks: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> None:
    right = probabilities.argmax(axis=-1) == masks
    images = [hits[mask != IGNORED].mean() for hits, mask in zip(right, masks, strict=True)]
    score = found.scores["pixel_accuracy"]
    assert score.high - score.low == pytest.approx(2 * 1.96 * np.std(images) / COUNT**0.5, rel=0.2)
    for score in found.scores.values():
        assert score.low < score.value < score.high


def test_a_folder_of_pictures_and_masks_is_evaluated_with_an_ignored_class(
    bundle: Bundle, images: NDArray[np.uint8], masks: NDArray[np.uint8], tmp_path: Path, found: Any
) -> None:
    from PIL import Image

    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:02d}.png")
        Image.fromarray(np.where(mask == IGNORED, len(CLASSES), mask).astype(np.uint8)).save(
            tmp_path / "masks" / f"{number:02d}.png"
        )
    (tmp_path / "classes.txt").write_text("\n".join([*CLASSES, "void"]))
    notes: list[str] = []
    read = ripieno.evaluate(bundle, tmp_path, ignore="void", notes=notes)
    assert {k: s.value for k, s in read.scores.items()} == pytest.approx({k: s.value for k, s in found.scores.items()})


def test_masks_have_coverage_by_image_an_order_of_answers_and_unknown_inputs(
    bundle: Bundle, images: NDArray[np.uint8], masks: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> None:
    level = fit_coverage(probabilities, masks, bundle.task, 0.8)
    fitted = replace(bundle, ensemble=replace(bundle.ensemble, coverage=(level,)))
    found = ripieno.evaluate(fitted, (images, masks), unknown=images[:7] // 2)
    rows = found.coverage[0.8]
    expected = np.nanmean(share_held(prediction_set(probabilities, level), masks))
    assert (rows[0].name, rows[0].samples) == ("all", COUNT)
    assert rows[0].value == pytest.approx(expected, abs=1e-4)
    assert {row.name for row in rows[1:]} <= set(CLASSES)
    wrong = (probabilities.argmax(axis=-1) != masks) & (masks != IGNORED)
    errors = wrong.sum(axis=(1, 2)) / (masks != IGNORED).sum(axis=(1, 2))
    order = np.argsort(-probabilities.max(axis=-1).mean(axis=(1, 2)))
    area = (np.cumsum(errors[order]) / np.arange(1, COUNT + 1)).mean()
    assert found.risk_coverage_area is not None
    assert found.risk_coverage_area.value == pytest.approx(area, rel=1e-4)
    assert found.unknown_samples == 7
    assert list(found.unknown) == ["entropy", "mutual information", "largest probability"]
