"""Distilled members: kept where they win, trained once, and refused with a reason."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno.backends.onnx import open_file
from ripieno.data.dataset import open_dataset
from ripieno.errors import LibraryError
from ripieno.pipeline import static_costs
from ripieno.pipeline.distillation import DistillationConfig, DistillationRecord, find_student, find_teacher
from ripieno.train import distillation as training
from tests.command_line import ripieno as command


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> ripieno.Library:
    shutil.copytree(finished_run, tmp_path / "run")
    return ripieno.Library(tmp_path / "run")


def counted(monkeypatch: pytest.MonkeyPatch, loses: bool = False) -> list[bool]:
    """Count trainings, True for those on a teacher; with `loses` the network trained on targets predicts uniformly."""
    calls: list[bool] = []

    def train(config: Any, job: Any, data: Any, taught: Any, *rest: Any) -> training.TrainedStudent:
        calls.append(taught is not None)
        found = original(config, job, data, taught, *rest)
        if taught is None and loses:
            return dataclasses.replace(found, predictions=np.full_like(found.predictions, 0.1))
        return found

    original = training.train_student
    monkeypatch.setattr(training, "train_student", train)
    return calls


def test_the_comparison_decides_and_is_made_once(run: ripieno.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    config = DistillationConfig(epochs=1)
    (made,) = ripieno.variants(run, [], distil=config)
    record = json.loads((run.path / "distillation" / f"{made.source.id}-distilled.json").read_bytes())
    distilled, plain, before = record["losses"]
    assert calls == [True, False]
    assert (made.member is not None) == (distilled < min(plain, before))
    assert record["epochs"][1] >= record["epochs"][0] == 1
    assert made.source.parameters == min(m.parameters for m in run.members())
    assert len(list((run.path / "distillation").iterdir())) == 1, "parts are removed"
    (again,) = ripieno.variants(run, [], distil=config)
    assert (calls, again.member, again.reason, again.added) == ([True, False], made.member, made.reason, False)


def test_a_winner_is_a_member_with_predictions_costs_and_variants(
    run: ripieno.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted(monkeypatch, loses=True)
    student = find_student(run, "", 0.2)
    run.update(dataclasses.replace(student, losses={**student.losses, "valid_cross_entropy": 50.0}))
    made, *_ = ripieno.variants(run, ["fp16"], distil=DistillationConfig(student=student.id, epochs=1), prune=1.0)
    assert made.member is not None
    name = f"{student.id}-distilled"
    assert (made.member.id, made.member.variant_of, made.added) == (name, student.id, True)
    data = open_dataset(run.dataset_path)
    rows = data.rows("valid")
    found = open_file(run.onnx_path(name).read_bytes())(np.asarray(data.inputs[rows]))[0]
    np.testing.assert_allclose(found, run.predictions(name), atol=1e-4)
    assert f"{name}-fp16" in run
    assert static_costs(run, [name])[name]["parameters"] == student.parameters
    assert "it wins, by" in made.reason


def test_an_interrupted_distillation_resumes(run: ripieno.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, epochs = counted(monkeypatch), []
    original = training.train_epoch

    def epoch(*given: Any) -> Any:
        epochs.append(len(epochs))
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(training, "train_epoch", epoch)
    with pytest.raises(KeyboardInterrupt):
        ripieno.variants(run, [], distil=DistillationConfig(epochs=1))
    (made,) = ripieno.variants(run, [], distil=DistillationConfig(epochs=1))
    assert calls == [True, False, True, False]
    record = json.loads((run.path / "distillation" / f"{made.source.id}-distilled.json").read_bytes())
    assert len(epochs) == 2 + record["epochs"][1], "the first network is not trained again"


def test_the_teacher_is_the_best_ensemble_or_the_one_named(run: ripieno.Library) -> None:
    best = min(run.ensembles(), key=lambda e: e.losses["valid_cross_entropy"])
    assert find_teacher(run, "") == pytest.approx(dict(zip(best.members, best.weights, strict=True)))
    member = run.ids()[0]
    assert find_teacher(run, member) == {member: 1.0}
    for ensemble in (run.path / "ensembles").iterdir():
        ensemble.unlink()
    shares = find_teacher(ripieno.Library(run.path), "")
    assert len(set(shares.values())) == 1
    assert sum(shares.values()) == pytest.approx(1)


def test_the_result_says_by_how_much() -> None:
    record = DistillationRecord("", {}, (2, 3), (1.0, 1.0), (0.5, 0.2, 0.3))
    assert (record.kept, record.describe("00001-e002")) == (
        False,
        "distilled, 00001-e002 has a loss of 0.5000 against 0.2000 on the targets in as much time: it is not kept, by "
        "0.3000",
    )
    won = dataclasses.replace(record, losses=(0.1, 0.3, 0.2))
    assert (won.kept, won.describe("a")) == (
        True,
        "distilled, a has a loss of 0.1000 against 0.2000 of a: it wins, by 0.1000",
    )


def test_bad_words_are_refused(run: ripieno.Library) -> None:
    for config, words in (
        (DistillationConfig(teacher="none"), "no ensemble or member 'none' as a teacher"),
        (DistillationConfig(student="none"), "no member 'none' as a student"),
        (DistillationConfig(epochs=0), "0 epochs of distillation: at least 1 is needed"),
    ):
        with pytest.raises(LibraryError, match=words):
            ripieno.variants(run, [], distil=config)
    done = command("variants", run.path, "--teacher", "B1")
    assert done.returncode == 2
    assert "--teacher is for distilled members only: add --distil, or leave it out" in done.stderr
