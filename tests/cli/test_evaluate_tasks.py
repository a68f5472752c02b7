"""`evaluate` and `predict` with bundles of several labels and of values, on a folder with a `labels.csv`."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, r2_score, root_mean_squared_error

import ripieno
from ripieno import EnsembleClassifier, EnsembleRegressor
from ripieno.__main__ import main
from ripieno.cli import console
from ripieno.types import Bundle

SPACE = {
    "family": "resnet",
    "ranges": {"width": {"kind": "integer", "low": 4, "high": 4}},
    "fixed": {"learning_rate": 0.02, "batch_size": 16, "stem_filters": 8, "blocks_1": 1, "blocks_2": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, their two labels and their two values, and a bundle of each."""
    path = tmp_path_factory.mktemp("tasks")
    values = np.random.default_rng(0).permutation(np.linspace(0, 1, 80))
    images = (200 * values[:, None, None, None] + np.zeros((80, 8, 8, 1))).astype(np.uint8)
    labels = np.stack([values > 0.5, values < 0.3], axis=1).astype(np.int64)
    targets = np.stack([values, 5 - 3 * values], axis=1)
    (path / "space.json").write_text(json.dumps(SPACE))
    quick: dict[str, Any] = {"trials": 1, "algorithm": "random", "pool": "inline", "epochs": 6, "free": "off"}
    quick |= {"space": str(path / "space.json"), "budget": {"parameters": 1e9}}
    for name, estimator, y, names in (
        ("labels", EnsembleClassifier(run=path / "labels-run", **quick), labels, ["0", "1"]),
        ("values", EnsembleRegressor(run=path / "values-run", **quick), targets, ["y0", "y1"]),
    ):
        (path / name).mkdir()
        estimator.fit(images, y)
        with open(path / name / "labels.csv", "w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["file", *names])
            for number, row in enumerate(y.tolist()):
                Image.fromarray(images[number, :, :, 0]).save(path / name / f"{number:02d}.png")
                table.writerow([f"{number:02d}.png", *row])
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs a command in this process and returns its standard output."""
    monkeypatch.chdir(folder)

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ripieno", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        console.set_output_mode(json=False, quiet=False)
        captured = capsys.readouterr()
        assert ended.value.code == 0, captured.err
        return captured.out

    return run


def bundle_of(folder: Path, name: str) -> tuple[Bundle, np.ndarray, np.ndarray]:
    """Return a bundle, its predictions of all pictures in their order and their targets."""
    from ripieno.library import read_bundle

    bundle = read_bundle(folder / f"{name}-run" / "estimator")
    with open(folder / name / "labels.csv", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    targets = np.array([[float(v) for v in row[1:]] for row in rows], np.float32)
    return bundle, ripieno.predict(bundle, [folder / name / row[0] for row in rows]), targets


def test_labels_are_evaluated_at_their_thresholds(folder: Path, run: Any) -> None:
    bundle, predictions, targets = bundle_of(folder, "labels")
    found = json.loads(run("evaluate", str(bundle.path), "labels", "--json"))
    thresholds = np.array(bundle.ensemble.thresholds)
    expected = f1_score(targets, predictions >= thresholds, average="macro")
    assert found["scores"]["macro_f1"]["value"] == pytest.approx(expected)
    assert found["scores"]["macro_f1"]["low"] <= expected <= found["scores"]["macro_f1"]["high"]
    assert [row["threshold"] for row in found["rows"]] == thresholds.tolist()
    assert found["confusion"] is None
    text = run("evaluate", str(bundle.path), "labels")
    assert "average precision" in text
    assert "mAP" in text
    assert "Brier score" in text
    assert "area under risk-coverage" in text
    unknown = json.loads(run("evaluate", str(bundle.path), "labels", "--unknown", "values", "--json"))
    assert unknown["unknown_samples"] == 80
    assert unknown["unknown"]["entropy"]["value"] == pytest.approx(0.5), "the same pictures"
    assert "80 known samples against 80 unknown ones" in run(
        "evaluate", str(bundle.path), "labels", "--unknown", "values"
    )


def test_suspects_of_labels_and_values_are_listed(folder: Path, run: Any) -> None:
    found = json.loads(run("suspects", "labels-run", "--json"))
    with open(folder / "labels-run" / "suspects.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["row"]) for row in rows] == [one["row"] for one in found["suspects"]]
    assert sum(found["samples"].values()) > 0
    for one in found["suspects"]:
        assert one["given"] != one["suggested"]
        assert {*one["given"].split("|"), *one["suggested"].split("|")} <= {"", "0", "1"}
    text = run("suspects", "values-run")
    with open(folder / "values-run" / "suspects.csv", newline="") as stream:
        values = list(csv.DictReader(stream))
    assert f"contradicts {len(values)} of" in text
    assert all(float(row["scaled_residual"]) > 3 for row in values)
    assert (folder / "values-run" / "suspects.html").read_text().startswith("<!doctype html>")


def test_values_are_evaluated_in_their_unit(folder: Path, run: Any) -> None:
    bundle, predictions, targets = bundle_of(folder, "values")
    found = json.loads(run("evaluate", str(bundle.path), "values", "--json"))
    assert found["scores"]["r2"]["value"] == pytest.approx(r2_score(targets, predictions), rel=1e-4)
    for i, row in enumerate(found["rows"]):
        assert row["target"] == f"y{i}"
        assert row["RMSE"] == pytest.approx(root_mean_squared_error(targets[:, i], predictions[:, i]), rel=1e-4)
    assert "RMSE" in run("evaluate", str(bundle.path), "values")


def test_labels_are_predicted_into_a_table(folder: Path, run: Any) -> None:
    bundle, predictions, _ = bundle_of(folder, "labels")
    run("predict", str(bundle.path), "labels", "--output", "labels-out.csv")
    with open(folder / "labels-out.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["file", "prediction", "0", "1"]
    named = predictions >= np.array(bundle.ensemble.thresholds)
    assert [r["prediction"] for r in rows] == ["|".join(str(i) for i in range(2) if row[i]) for row in named]


def test_values_are_predicted_into_a_table(folder: Path, run: Any) -> None:
    bundle, predictions, _ = bundle_of(folder, "values")
    out = run("predict", str(bundle.path), "values", "--output", "values-out.csv")
    assert "y1" in out
    with open(folder / "values-out.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    columns = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))
    parts = ("", "_spread", "_standard_deviation")
    assert list(columns) == ["file", *(f"{name}{part}" for name in ("y0", "y1") for part in parts)]
    values, spread, deviation = (np.array([columns["y0" + part], columns["y1" + part]], np.float32).T for part in parts)
    np.testing.assert_allclose(values, predictions, rtol=1e-5)
    assert spread.max() == 0, "one member"
    known = bundle.ensemble.spread_calibration
    assert known is not None
    np.testing.assert_allclose(deviation, np.tile(np.float32(known.floors), (len(deviation), 1)), rtol=1e-5)


def test_data_of_another_task_is_refused_in_a_line(folder: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name / "1.png")
    with pytest.raises(ripieno.RipienoError, match="the task of the data is classification; expected regression"):
        ripieno.evaluate(folder / "values-run" / "estimator", tmp_path)
