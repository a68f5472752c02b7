"""Reports of runs of series: the hardest ones are drawn, with what they were taken for."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.data import open_dataset, write_dataset
from ripieno.library import Library
from ripieno.reports import report
from ripieno.tasks.registry import kind_of
from ripieno.types import BatchProfile, Dataset, Input, Member, Profile, Task
from tests.reports.made_run import KIND

CLASSES = Task("classification", (2,), ("slow", "<b>fast</b>"), "accuracy")
VALUES = Task("regression", (1,), ("speed",), "rmse")


def make_run(path: Path, task: Task, members: int = 3) -> Library:
    """Make a run of series of 8 to 12 points whose members have test predictions and costs."""
    rng = np.random.default_rng(0)
    split = np.repeat(np.arange(3, dtype=np.uint8), (20, 30, 40))
    series = rng.normal(size=(90, 12, 1)).astype(np.float32)
    series[::2, 8:] = np.nan
    of_classes = task is CLASSES
    targets: Any = np.arange(90) % 2 if of_classes else rng.normal(size=(90, 1)).astype(np.float32)
    dataset = Dataset("waves", series, targets, split, task, (0.0,), (1.0,), kind="series")
    write_dataset(dataset, path / "dataset")
    library, kind = Library(path), kind_of(task)
    for number in range(members):
        found = rng.dirichlet((1, 1), 90) if of_classes else targets + rng.normal(size=(90, 1))
        found, rows = found.astype(np.float32), dataset.rows("valid")
        losses = kind.losses(found[rows], targets[rows], task)
        member = Member(f"{number:05d}-e001", number, 1, "lite", {}, Input((12, 1), "float32"), task, losses, 1000, 2.0)
        library.add(member, found[rows], targets[rows])
        rows = dataset.rows("test")
        library.write_predictions(member.id, "test", found[rows], targets[rows])
    profiles = [
        Profile(m.id, KIND, "onnx", (BatchProfile(8, 0.1 * (n + 1), 0.02, 1 << 20),))
        for n, m in enumerate(library.members())
    ]
    library.write_profiles(KIND, profiles)
    return library


@pytest.mark.parametrize("task", [CLASSES, VALUES], ids=lambda task: task.kind)
def test_the_hardest_series_are_drawn(tmp_path: Path, task: Task) -> None:
    library = make_run(tmp_path / "run", task)
    page = report(library).read_text()
    assert "Hardest series" in page
    assert "<b>fast</b>" not in page
    assert "images" not in page.partition("<body>")[2].partition("<script")[0]
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    drawn = {s["row"]: data["drawings"][s["drawing"]] for p in data["points"] for s in p["hardest"]}
    assert drawn
    dataset = open_dataset(library.dataset_path)
    for row, drawing in drawn.items():
        series = dataset.inputs[dataset.rows("test")[row], :, 0]
        length = int(np.isfinite(series).sum())
        assert drawing["note"].startswith(f"{length} points, {series[:length].min():.3g} to ")
        assert len(drawing["lines"]) == 1
    plot = (tmp_path / "run" / "report" / "hardest-series.svg").read_text()
    for sample in data["points"][-1]["hardest"]:
        named = (task.names[one] if isinstance(one, int) else one for one in (sample["truth"], sample["answer"]))
        truth, answer = (html.escape(name, quote=False) for name in named)
        assert f">{sample['row']}: {truth}<" in plot
        assert f">\N{RIGHTWARDS ARROW} {answer}<" in plot
    with open(tmp_path / "run" / "report" / "series.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {int(row["row_of_split"]) for row in rows if row["why"] == "hardest"} == set(drawn)


@pytest.mark.parametrize("task", [CLASSES, VALUES], ids=lambda task: task.kind)
@pytest.mark.parametrize("part", ["targets", "split"])
def test_predictions_of_other_samples_are_not_drawn(tmp_path: Path, task: Task, part: str) -> None:
    library = make_run(tmp_path / "run", task)
    dataset = open_dataset(library.dataset_path)
    fewer = np.repeat(np.arange(3, dtype=np.uint8), (50, 30, 10))
    other = dataclasses.replace(dataset, path=None, **{part: 1 - dataset.targets if part == "targets" else fewer})
    write_dataset(other, tmp_path / "other")
    (tmp_path / "other" / f"{part}.npy").rename(library.dataset_path / f"{part}.npy")
    page = report(library).read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["drawings"] == []
    assert not (tmp_path / "run" / "report" / "hardest-series.svg").exists()
