"""The AutoML benchmark runs ripieno: its own `runbenchmark.py` on tasks of local files.

    RIPIENO_AMLB=/path/to/automlbenchmark pytest -m amlb tests/integrations

The benchmark's environment is the `venv` in that folder, as its manual installs it, or the Python that
`RIPIENO_AMLB_PYTHON` names. ripieno runs in the environment of the tests.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.amlb, pytest.mark.alone, pytest.mark.timeout(1500)]

USER = Path(__file__).parents[2] / "integrations" / "amlb"
SECONDS = 60
"""Time limit of each task."""


def read_lines(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Harness:
    """A checkout of the benchmark, a user directory with ripieno, and three tasks."""

    def __init__(self, root: Path, python: Path, folder: Path) -> None:
        self.root, self.python, self.folder = root, python, folder
        self.user, self.output = folder / "user", folder / "output"
        self.tasks = folder / "tasks.yaml"

    def run(self, framework: str, task: str, *options: str) -> dict[str, str]:
        """Run a task and return its line of results."""
        before = len(self.results())
        words = [framework, str(self.tasks), "-t", task, "-u", str(self.user), "-o", str(self.output), *options]
        command = [str(self.python), str(self.root / "runbenchmark.py"), *words]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        rows = self.results()
        assert len(rows) == before + 1, done.stdout[-4000:] + done.stderr[-4000:]
        return rows[-1]

    def results(self) -> list[dict[str, str]]:
        path = self.output / "results.csv"
        return read_lines(path) if path.exists() else []

    def artefact(self, name: str, task: str) -> Path:
        return max(self.output.glob(f"*/{name}/{task}/0/*"), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    if "RIPIENO_AMLB" not in os.environ:
        pytest.skip("needs the AutoML benchmark: RIPIENO_AMLB names its folder")
    root = Path(os.environ["RIPIENO_AMLB"])
    python = Path(os.environ.get("RIPIENO_AMLB_PYTHON", root / "venv" / "bin" / "python"))
    folder = tmp_path_factory.mktemp("amlb")
    own = shutil.ignore_patterns("venv", ".setup", "__pycache__")
    shutil.copytree(USER, folder / "user", ignore=own)
    framework = folder / "user" / "extensions" / "ripieno"
    (framework / "venv").symlink_to(sys.prefix)
    (framework / ".setup").mkdir()
    (framework / ".setup" / "installed").write_text("tests\nlocal\n")
    write_tasks(folder)
    return Harness(root, python, folder)


def write_tasks(folder: Path) -> None:
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

    loaded = {"digits": load_digits, "cancer": load_breast_cancer, "diabetes": load_diabetes}
    types = {"digits": "multiclass", "cancer": "binary", "diabetes": "regression"}
    tasks: list[dict[str, Any]] = []
    for name, load in loaded.items():
        frame = load(as_frame=True).frame
        if name == "cancer":
            frame["target"] = frame["target"].map({0: "Malignant", 1: "Benign"})
        if name == "diabetes":
            frame["sex"] = np.where(frame["sex"] > 0, "a", "b")
            frame.loc[::7, "bmi"] = np.nan
            frame.loc[::9, "sex"] = None
        frame = frame.sample(frac=1, random_state=0)
        rows = len(frame) * 4 // 5
        files = {"train": frame.iloc[:rows], "test": frame.iloc[rows:]}
        for split, part in files.items():
            part.to_csv(folder / f"{name}_{split}.csv", index=False)
        paths = {split: str(folder / f"{name}_{split}.csv") for split in files}
        limits = {"folds": 1, "max_runtime_seconds": SECONDS, "cores": 2}
        tasks.append({"name": name, "dataset": {**paths, "target": "target", "type": types[name]}, **limits})
    (folder / "tasks.yaml").write_text(json.dumps(tasks))  # JSON is YAML


MEASURED = ("-Xinference_time_measurements.enabled=True",)


def check_limits(row: dict[str, str]) -> None:
    assert not row["info"], row["info"]
    assert float(row["training_duration"]) < SECONDS
    assert int(float(row["models_count"])) > 1
    assert 0 < float(row["infer_batch_size_df_1"]) < 2


def test_multiclass(harness: Harness) -> None:
    row = harness.run("ripieno", "digits", *MEASURED, "-Xf._save_artifacts=['leaderboard','front','models']")
    check_limits(row)
    assert float(row["acc"]) > 0.92
    assert float(row["logloss"]) < 0.324, "not better than the benchmark's RandomForest"
    members = read_lines(harness.artefact("leaderboard", "digits"))
    assert len(members) == int(float(row["models_count"]))
    assert 0 < sum(m["in_ensemble"] == "True" for m in members) < len(members)
    losses = [float(m["valid_cross_entropy"]) for m in members]
    assert losses == sorted(losses)
    front = json.loads(harness.artefact("front", "digits").read_text())
    assert front["cost"] == "parameters"
    assert front["ensembles"]
    with zipfile.ZipFile(harness.artefact("models", "digits")) as models:
        assert any(Path(name).name == "bundle.json" for name in models.namelist())


def test_binary(harness: Harness) -> None:
    row = harness.run("ripieno", "cancer", *MEASURED)
    check_limits(row)
    assert row["metric"] == "auc"
    assert float(row["auc"]) > 0.97


def test_regression_with_categories_and_missing_values(harness: Harness) -> None:
    row = harness.run("ripieno", "diabetes", *MEASURED)
    check_limits(row)
    assert float(row["rmse"]) < 68


def test_columns_as_images(harness: Harness) -> None:
    row = harness.run("ripieno_images", "digits")
    assert not row["info"], row["info"]
    assert float(row["acc"]) > 0.9
    members = read_lines(harness.artefact("leaderboard", "digits"))
    assert "resnet" in {m["family"] for m in members}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-Xf.spce=table"], "parameter 'spce' is unknown: it must be one of algorithm,"),
        (["-Xf._images=[9,9]"], "_images is [9, 9, 1], 81 values, but there are 64 columns"),
        (["-Xt.max_runtime_seconds=5"], "max_runtime_seconds 5 is too little"),
    ],
)
def test_bad_input_is_a_line_of_results_with_the_reason(harness: Harness, options: list[str], reason: str) -> None:
    row = harness.run("ripieno", "digits", *options)
    assert row["result"] == ""
    assert row["info"].startswith(f"NoResultError: {reason}")
