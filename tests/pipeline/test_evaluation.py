"""A bundle's predictions compared with the targets of a data set."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

import ripieno
from ripieno.data import open_dataset
from ripieno.errors import DataError
from ripieno.pipeline.evaluation import BundleEvaluation, bootstrap
from ripieno.reports.confusion import confusion


@pytest.fixture(scope="module")
def found(finished_bundle: Path, digit_folder: Path) -> BundleEvaluation:
    return ripieno.evaluate(finished_bundle, digit_folder)


def test_the_scores_are_scikit_learns_on_the_pictures_of_the_folder(
    found: BundleEvaluation, finished_bundle: Path, digit_folder: Path
) -> None:
    paths = sorted(digit_folder.rglob("*.png"))
    targets = np.array([int(path.parent.name.removeprefix("digit-")) for path in paths])
    predictions = ripieno.predict(finished_bundle, paths)
    answers = predictions.argmax(axis=1)
    assert (found.samples, found.split) == (360, "all")
    assert np.array_equal(found.targets, targets)
    assert np.array_equal(found.predictions, predictions)
    assert found.scores["accuracy"].value == pytest.approx(accuracy_score(targets, answers))
    assert found.scores["macro_f1"].value == pytest.approx(f1_score(targets, answers, average="macro"))
    precision, recall, f1, counts = precision_recall_fscore_support(targets, answers, zero_division=0)
    for i, row in enumerate(found.rows):
        assert (row["class"], row["samples"]) == (f"digit-{i}", counts[i])
        assert [row[n] for n in ("precision", "recall", "F1")] == pytest.approx([precision[i], recall[i], f1[i]])
    assert np.array_equal(confusion(targets, answers, tuple(range(10)), 10), confusion_matrix(targets, answers))


def test_a_prepared_data_set_is_evaluated_on_its_test_split(finished_run: Path, finished_bundle: Path) -> None:
    dataset = open_dataset(finished_run / "dataset")
    for split, count in (("auto", len(dataset.rows("test"))), ("valid", len(dataset.rows("valid"))), ("all", 360)):
        assert ripieno.evaluate(finished_bundle, finished_run / "dataset", split=split).samples == count  # type: ignore[arg-type]


def test_arrays_and_their_labels_are_matched_by_position_or_name(finished_run: Path, finished_bundle: Path) -> None:
    dataset = open_dataset(finished_run / "dataset")
    rows = dataset.rows("test")
    images, labels = np.asarray(dataset.inputs[rows]), np.asarray(dataset.targets[rows])
    own = ripieno.evaluate(finished_bundle, finished_run / "dataset")
    for given in (labels, np.array(dataset.classes)[labels]):
        assert ripieno.evaluate(finished_bundle, (images, given)).scores == own.scores


def test_a_folder_of_some_classes_in_another_order_is_matched_by_name(
    finished_bundle: Path, digit_folder: Path, tmp_path: Path
) -> None:
    for name in ("digit-7", "digit-2"):
        shutil.copytree(digit_folder / name, tmp_path / name)
    found = ripieno.evaluate(finished_bundle, tmp_path)
    assert sorted(set(found.targets.tolist())) == [2, 7]


def test_other_classes_and_other_shapes_are_refused_in_a_line(
    finished_bundle: Path, digit_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(digit_folder / "digit-3", tmp_path / "cat")
    shutil.copytree(digit_folder / "digit-4", tmp_path / "digit-4")
    with pytest.raises(DataError, match=r"contain 'cat', which is not one of the 10 class names: the classes are"):
        ripieno.evaluate(finished_bundle, tmp_path)
    with pytest.raises(DataError, match=r"inputs have shape \(1, 9, 9, 1\), must be \(samples, 8, 8, 1\)"):
        ripieno.evaluate(finished_bundle, (np.zeros((20, 9, 9, 1), np.uint8), np.arange(20) % 10))
    with pytest.raises(DataError, match="the data has no valid split: pass --split all"):
        ripieno.evaluate(finished_bundle, digit_folder, split="valid")


def test_the_bootstrap_covers_a_mean_as_its_normal_interval_does() -> None:
    hits = np.random.default_rng(1).random(400) < 0.8
    score = bootstrap(lambda rows: {"accuracy": float(hits[rows].mean())}, len(hits))["accuracy"]
    deviation = hits.std() / 20
    assert score.value == hits.mean()
    assert (score.value - score.low, score.high - score.value) == pytest.approx((1.96 * deviation,) * 2, rel=0.15)
