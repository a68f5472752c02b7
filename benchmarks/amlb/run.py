"""ripieno, RandomForest and AutoGluon in the AutoML benchmark's own harness, on local tasks.

    python benchmarks/amlb/run.py --harness FOLDER [--python PYTHON] --data FOLDER [--tasks digits fashion ...]
        [--frameworks ripieno RandomForest AutoGluon] [--seconds 3600] [--cores 2] [--seed 1]

FOLDER of the harness is a checkout of openml/automlbenchmark; PYTHON runs it, by default that of its `venv`. FOLDER of
the data holds fashion_mnist/. A task has one fold. digits, cancer and diabetes come with scikit-learn; a fifth of their
rows are test rows. fashion is Fashion-MNIST as in the published benchmark: 784 columns, a tenth of the 70,000 rows, by
class, are test rows. ripieno takes these columns as images, the others as columns. The harness installs each framework
at its first run. Finished runs are kept under runs/amlb/, by limits and seed, and read. `--reference FOLDER` holds the
published means, amlb2021_*.csv. Writes benchmarks/results/amlb.{json,txt}.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
import numpy as np
import pandas
from record import record
from sets import read_packed
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs" / "amlb"
USER = ROOT / "integrations" / "amlb"
TYPES = {"digits": "multiclass", "cancer": "binary", "diabetes": "regression", "fashion": "multiclass"}
PUBLISHED = {"fashion": "Fashion-MNIST"}
"""Names of the tasks in the published tables."""
SCORES = ("acc", "logloss", "auc", "rmse")
TIMES = {"fit (s)": "training_duration", "predict (s)": "predict_duration", "models": "models_count"}


def read_table(name: str, data: Path | None) -> pandas.DataFrame:
    """Return the rows of a task, with a column `target`."""
    if name != "fashion":
        load = {"digits": load_digits, "cancer": load_breast_cancer, "diabetes": load_diabetes}[name]
        return load(as_frame=True).frame
    if data is None:
        raise SystemExit("the task fashion needs --data FOLDER, which holds fashion_mnist/")
    parts = []
    for split in ("train", "test"):
        images = read_packed(data / "fashion_mnist" / f"{split}_images.npy.xz").reshape(-1, 784)
        part = pandas.DataFrame(images, columns=[f"pixel{i}" for i in range(1, 785)])
        parts.append(part.assign(target=np.load(data / "fashion_mnist" / f"{split}_labels.npy")))
    return pandas.concat(parts, ignore_index=True)


def write_task(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the definition of a task, whose files are written where they do not exist."""
    paths = {split: RUNS / "data" / f"{name}_{split}.csv" for split in ("train", "test")}
    if not all(path.exists() for path in paths.values()):
        table = read_table(name, options.data)
        share, labels = (0.1 if name == "fashion" else 0.2), None if TYPES[name] == "regression" else table["target"]
        parts = train_test_split(table, test_size=share, stratify=labels, random_state=0)
        paths["train"].parent.mkdir(parents=True, exist_ok=True)
        for path, part in zip(paths.values(), parts, strict=True):
            part.to_csv(path, index=False)
    files = {split: str(path) for split, path in paths.items()}
    limits = {"folds": 1, "max_runtime_seconds": options.seconds, "cores": options.cores}
    return {"name": name, "dataset": {**files, "target": "target", "type": TYPES[name]}, **limits}


def results(output: Path) -> list[dict[str, str]]:
    """Return the harness's lines of results in a folder."""
    path = output / "results.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(framework: str, task: str, tasks: Path, output: Path, options: argparse.Namespace) -> dict[str, str]:
    """Return the harness's line of results of a task, from a finished run or a new one."""
    named = "ripieno_images" if (framework, task) == ("ripieno", "fashion") else framework

    def finished() -> list[dict[str, str]]:
        return [r for r in results(output) if (r["framework"], r["task"]) == (named, task)]

    if not (rows := [r for r in finished() if r["result"]]):
        words = [named, tasks, "-t", task, "-u", USER, "-o", output, f"-Xseed={options.seed}"]
        script = Path(__file__).with_name("harness.py")
        command = [options.python, script, options.harness / "runbenchmark.py", *words]
        print(f"{named} on {task} ...", flush=True)
        log = output / f"{named}-{task}.log"
        with open(log, "w") as stream:
            subprocess.run([str(w) for w in command], cwd=options.harness, stdout=stream, stderr=subprocess.STDOUT)
        rows = finished() or [{"framework": named, "info": f"the harness gave no result: see {log.relative_to(ROOT)}"}]
    return rows[-1]


def shown(task: str, row: dict[str, str], harness: Path) -> dict[str, Any]:
    """Return a line of the table."""
    info = (row.get("info") or "").replace(str(harness), "HARNESS")
    return line(task, row["framework"], row, TIMES) | {"info": info[:100]}


def line(task: str, framework: str, row: dict[str, str], times: dict[str, str]) -> dict[str, Any]:
    """Return scores and times, empty where there are none; `times` are columns of `row` by title."""
    columns = {name: name for name in SCORES} | times
    numbers = {title: float(row[name]) if row.get(name) else "" for title, name in columns.items()}
    return {"task": task, "framework": framework, **numbers}


def published(task: str, folder: Path) -> list[dict[str, Any]]:
    """Return lines of the published means of a task: ten folds on eight cores, at one and four hours."""
    lines, table = [], folder / "amlb2021_classification_means.csv"
    if task not in PUBLISHED or not table.exists():
        return []
    with open(table, newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    for row in rows:
        if row["task"] == PUBLISHED[task]:
            title = f"{row['framework'].removesuffix('_benchmark')}, published, {row['constraint'].split('_')[0]}"
            lines.append(line(task, title, row, {"fit (s)": "seconds", "models": "models"}))
    return sorted(lines, key=lambda one: one["logloss"])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--harness", type=Path, required=True)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--reference", type=Path, default=ROOT.parent / "shared" / "reference")
    parser.add_argument("--tasks", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--frameworks", nargs="+", default=["ripieno", "RandomForest", "AutoGluon"])
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.harness = options.harness.absolute()
    options.python = (options.python or options.harness / "venv" / "bin" / "python").absolute()
    output = RUNS / f"{options.seconds}s-{options.cores}c-{options.seed}"
    output.mkdir(parents=True, exist_ok=True)
    tasks = output / "local.yaml"
    tasks.write_text(json.dumps([write_task(name, options) for name in options.tasks], indent=1))  # JSON is YAML
    rows: list[dict[str, Any]] = []
    for task in options.tasks:
        rows += [
            shown(task, run(framework, task, tasks, output, options), options.harness)
            for framework in options.frameworks
        ]
        rows += published(task, options.reference)
    commit = ["git", "-C", str(options.harness), "rev-parse", "--short", "HEAD"]
    harness = subprocess.run(commit, capture_output=True, text=True).stdout.strip() or "unknown"
    settings = {"seconds": options.seconds, "cores": options.cores, "seed": options.seed, "harness": harness}
    note = "One fold. Published means are of ten folds on eight cores (AMLB, 2021); their folds are others."
    record("amlb", settings, rows, note)


if __name__ == "__main__":
    main()
