"""A bundle's predictions compared with the targets of a data set."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

import ripieno
from ripieno.data import open_dataset
from ripieno.errors import DataError
from ripieno.library import read_bundle
from ripieno.pipeline.evaluation import BundleEvaluation, bootstrap
from ripieno.reports.confusion import confusion
from ripieno.tasks.conformal import fit_coverage


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


def test_probabilities_are_judged_by_brier_calibration_and_what_is_answered(found: BundleEvaluation) -> None:
    right, confidence = found.predictions.argmax(axis=1) == found.targets, found.predictions.max(axis=1)
    assert found.scores["brier_score"].value == pytest.approx(
        brier_score_loss(found.targets, found.predictions, labels=range(10), scale_by_half=False), rel=1e-5
    )
    assert found.calibration is not None
    calibration = found.scores["calibration_error"]
    assert (calibration.value, calibration.low, calibration.high) == (
        found.calibration.value, found.calibration.low, found.calibration.high,
    )  # fmt: skip
    assert sum(b.count for b in found.calibration.bins) == 360
    errors = 1 - right[np.argsort(-confidence, kind="stable")]
    area = found.risk_coverage_area
    assert area is not None
    assert area.value == pytest.approx((np.cumsum(errors) / np.arange(1, 361)).mean(), rel=1e-3)
    assert area.low < area.value < area.high
    assert area.value < errors.mean(), "the certain answers are the better ones"


def test_the_coverage_of_the_ensemble_is_counted_by_class(finished_run: Path, finished_bundle: Path) -> None:
    bundle = read_bundle(finished_bundle)
    whole = ripieno.evaluate(bundle, finished_run / "dataset", split="all")
    levels = tuple(fit_coverage(whole.predictions, whole.targets, bundle.task, level) for level in (0.8, 0.95))
    fitted = dataclasses.replace(bundle, ensemble=dataclasses.replace(bundle.ensemble, coverage=levels))
    rows = ripieno.evaluate(fitted, finished_run / "dataset", split="all").coverage
    assert list(rows) == [0.8, 0.95]
    for level, own in rows.items():
        assert own[0].name == "all"
        assert [row.name for row in own[1:]] == list(bundle.classes)
        assert level <= own[0].value <= level + 0.02, "fitted to these samples, the quantile is theirs"
        assert own[0].value == pytest.approx(
            np.average([row.value for row in own[1:]], weights=[row.samples for row in own[1:]])
        )
    assert rows[0.8][0].size <= rows[0.95][0].size
    assert not whole.coverage


def test_unknown_inputs_are_told_by_each_number(finished_bundle: Path, finished_run: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
    found = ripieno.evaluate(finished_bundle, finished_run / "dataset", unknown=noise)
    assert found.unknown_samples == 60
    assert list(found.unknown) == ["entropy", "mutual information", "largest probability"]
    noisy = ripieno.predict(finished_bundle, noise)
    truth = np.repeat([0, 1], [found.samples, 60])
    doubt = 1 - np.concatenate([found.predictions.max(axis=1), noisy.max(axis=1)])
    assert found.unknown["largest probability"].value == pytest.approx(roc_auc_score(truth, doubt))
    for area in found.unknown.values():
        assert area.low <= area.value <= area.high
    with pytest.raises(DataError, match=r"must be \(samples, 8, 8, 1\)"):
        ripieno.evaluate(finished_bundle, finished_run / "dataset", unknown=np.zeros((3, 9, 9, 1), np.uint8))
    with pytest.raises(DataError, match="there are no unknown inputs: pass at least one sample"):
        ripieno.evaluate(finished_bundle, finished_run / "dataset", unknown=noise[:0])
