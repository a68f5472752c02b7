"""Reports of runs of several labels and of a regression: the figures of their task, and none of classes."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    jaccard_score,
    mean_absolute_error,
    precision_score,
    r2_score,
    recall_score,
    root_mean_squared_error,
)

from ripieno.data import write_dataset
from ripieno.library import Library
from ripieno.reports import report
from ripieno.reports.task_tables import error_by_decile, label_rows, mask_rows, target_rows
from ripieno.tasks.registry import kind_of
from ripieno.types import IGNORED, BatchProfile, Dataset, Input, Member, Profile, Task
from tests.pixel_members import TASK as PIXELS
from tests.pixel_members import make_masks, predict_masks
from tests.reports.made_run import KIND

LABELS = Task("multilabel", (3,), ("red", "<b>round</b>", "rare"), "macro-f1")
VALUES = Task("regression", (2,), ("width", "height"), "rmse")


def make_run(path: Path, task: Task, members: int = 8) -> Library:
    """Make a run of `task` with members of growing skill, test predictions and costs."""
    rng = np.random.default_rng(0)
    split = np.repeat(np.arange(3, dtype=np.uint8), (40, 80, 120))
    values = rng.normal(5, 2, (240, len(task.names)))
    labels = task.kind == "multilabel"
    targets = (values > 6).astype(np.uint8) if labels else values.astype(np.float32)
    images = rng.integers(0, 255, (240, 8, 8, 3), dtype=np.uint8)
    dataset = write_dataset(Dataset("made", images, targets, split, task, (127.0,) * 3, (60.0,) * 3), path / "dataset")
    library, kind = Library(path), kind_of(task)
    for number in range(members):
        noisy = values + rng.normal(0, 2 - 0.2 * number, values.shape)
        found = (1 / (1 + np.exp(6 - noisy)) if labels else noisy).astype(np.float32)
        rows = dataset.rows("valid")
        losses = kind.losses(found[rows], targets[rows], task)
        member = Member(f"{number:05d}-e001", number, 1, "resnet", {}, Input((8, 8, 3)), task, losses, 1000, 2.0)
        library.add(member, found[rows], targets[rows])
        rows = dataset.rows("test")
        library.write_predictions(member.id, "test", found[rows], targets[rows])
    points = [tuple(BatchProfile(b, c * b / 2000, 0.02, 1 << 20) for b in (1, 8)) for c in rng.uniform(0.1, 1, members)]
    library.write_profiles(
        KIND, [Profile(m.id, KIND, "onnx", p) for m, p in zip(library.members(), points, strict=True)]
    )
    return library


@pytest.mark.parametrize("task", [LABELS, VALUES], ids=lambda task: task.kind)
def test_the_page_has_the_loss_and_the_section_of_the_task(tmp_path: Path, task: Task) -> None:
    page = report(make_run(tmp_path / "run", task)).read_text()
    titles = {"multilabel": "binary cross-entropy", "regression": "squared error"}
    shown = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert f"validation {titles[task.kind]}" in shown
    assert "accuracy" not in shown.partition("<script>")[0]
    assert not re.search(r"(?<!binary )cross-entropy", shown.partition("<script>")[0])
    assert 'id="confusion"' not in page
    assert "<b>round</b>" not in page
    assert ("By label" in page, "By target" in page) == (task is LABELS, task is VALUES)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert (data["ranking"], data["shown"]) == (titles[task.kind].replace(" ", "_").replace("-", "_"), [])
    hardest = data["points"][-1]["hardest"]
    assert len(hardest) == 12
    assert [s["p"] for s in hardest] == sorted((s["p"] for s in hardest), reverse=True)
    assert all(isinstance(s["truth"], str) for s in hardest)
    folder = tmp_path / "run" / "report"
    with open(folder / "by-name.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(task.names)
    plots = {p.stem for p in folder.glob("*.svg")}
    assert {"labels"} <= plots if task is LABELS else {"residuals-0", "deciles-1"} <= plots
    assert "confusion" not in plots
    assert ("reliability" in plots, "risk-coverage" in plots) == (task is LABELS, True)
    with open(folder / "risk-coverage.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    curves = {row["answered_by"]: float(row["mean_error"]) for row in rows if float(row["share_answered"]) == 1}
    library, ensemble = Library(tmp_path / "run"), data["points"][-1]
    assert set(curves) == (
        {"ensemble", "best member"} if task is LABELS and len(ensemble["members"]) > 1 else {"ensemble"}
    )
    if task is VALUES:
        assert curves["ensemble"] == pytest.approx(ensemble["figures"]["test_squared_error"], rel=1e-3)
    assert len(library.targets("test")) >= len([row for row in rows if row["answered_by"] == "ensemble"])


def test_the_figures_of_labels_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    targets, predictions = rng.integers(0, 2, (50, 3), np.uint8), rng.random((50, 3)).astype(np.float32)
    rows = label_rows(predictions, targets, LABELS, (0.2, 0.5, 0.8))
    for i, row in enumerate(rows):
        assert row["threshold"] == (0.2, 0.5, 0.8)[i]
        assert row["F1"] == pytest.approx(f1_score(targets[:, i], predictions[:, i] >= row["threshold"]))
        assert row["average precision"] == pytest.approx(average_precision_score(targets[:, i], predictions[:, i]))


def test_the_figures_of_targets_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(50, 2)).astype(np.float32)
    predictions = targets + rng.normal(0, 0.5, (50, 2)).astype(np.float32)
    for i, row in enumerate(target_rows(predictions, targets, VALUES)):
        pair = targets[:, i], predictions[:, i]
        assert row["RMSE"] == pytest.approx(root_mean_squared_error(*pair), rel=1e-5)
        assert row["MAE"] == pytest.approx(mean_absolute_error(*pair), rel=1e-5)
        assert row["R2"] == pytest.approx(r2_score(*pair), rel=1e-5)


def test_deciles_hold_every_sample_once_by_its_true_value() -> None:
    targets = np.random.default_rng(0).permutation(25).astype(np.float32)
    rows = error_by_decile(targets + np.where(targets < 3, 2, 0), targets)
    assert [row[2] for row in rows] == [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]
    assert rows[0] == (0.0, 2.0, 3, 2.0, 2.0)
    assert rows[1][:2] == (3.0, 5.0)
    assert all(row[3:] == (0.0, 0.0) for row in rows[1:])


def test_a_run_without_a_metric_shows_the_first_score_of_its_task(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", replace(VALUES, metric=""))).read_text()
    assert "its test RMSE" in page


def test_the_figures_of_classes_of_pixels_are_scikit_learns() -> None:
    masks = make_masks(20)
    predictions = predict_masks(masks, 1)[0]
    counted = masks != IGNORED
    truth, found = masks[counted], predictions.argmax(axis=-1)[counted]
    for i, row in enumerate(mask_rows(predictions, masks, PIXELS)):
        assert row["IoU"] == pytest.approx(jaccard_score(truth == i, found == i))
        assert row["Dice"] == pytest.approx(f1_score(truth == i, found == i))
        assert row["precision"] == pytest.approx(precision_score(truth == i, found == i))
        assert row["recall"] == pytest.approx(recall_score(truth == i, found == i))
        assert row["pixels"] == (truth == i).sum()


def test_a_class_absent_in_masks_and_predictions_has_no_iou() -> None:
    predictions = np.zeros((1, 6, 8, 3), np.float32)
    predictions[..., 0] = 1
    rows = mask_rows(predictions, np.zeros((1, 6, 8), np.uint8), PIXELS)
    assert [row["IoU"] for row in rows] == [1.0, None, None]
