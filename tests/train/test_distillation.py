"""Distillation: networks learn a teacher's predictions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ripieno.train import TrainingConfig
from ripieno.train import distillation as module
from ripieno.train.distillation import train_student
from ripieno.types import Dataset, Float32s, Job
from tests.mixed_table import TASKS, mixed_table


def student(data: Dataset, taught: Float32s | None, folder: Path, stop: int = 3) -> module.TrainedStudent:
    config = TrainingConfig(run=folder, dataset=folder, family="mlp", epochs=stop)
    job = Job(0, {"layers": 1, "units": 16, "learning_rate": 0.02, "batch_size": 32}, 0, stop)
    return train_student(config, job, data, taught, folder / f"{taught is None}.safetensors")


@pytest.mark.parametrize("kind", TASKS)
def test_a_student_learns_the_teacher_and_not_the_targets(kind: str, tmp_path: Path) -> None:
    data = mixed_table(kind)
    truth = np.asarray(data.targets)
    if kind == "classification":
        taught = np.eye(len(data.task.names), dtype=np.float32)[(truth + 1) % len(data.task.names)]
    else:
        taught = (1 - truth if kind == "multilabel" else truth.mean(0) * 2 - truth).astype(np.float32)
    found = student(data, taught, tmp_path).predictions
    plain = student(data, None, tmp_path).predictions
    wanted = taught[data.rows("valid")]
    assert np.square(found - wanted).mean() < 0.8 * np.square(plain - wanted).mean()


def test_an_interrupted_student_resumes_from_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = mixed_table("multilabel")
    taught = np.full((len(data.targets), *data.task.output), 0.3, np.float32)
    whole = student(data, taught, tmp_path / "whole")
    trained: list[int] = []

    def epoch(trainer, state, *rest):  # type: ignore[no-untyped-def]
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(state.epoch + 1)
        return original(trainer, state, *rest)

    original = module.train_epoch
    monkeypatch.setattr(module, "train_epoch", epoch)
    with pytest.raises(KeyboardInterrupt):
        student(data, taught, tmp_path)
    trained[:] = [0]
    resumed = student(data, taught, tmp_path)
    assert trained == [0, 3]
    np.testing.assert_array_equal(resumed.predictions, whole.predictions)


def test_the_same_network_starts_both_trainings(tmp_path: Path) -> None:
    data = mixed_table("classification")
    hard = np.eye(len(data.task.names), dtype=np.float32)[np.asarray(data.targets)]
    taught, plain = (student(data, value, tmp_path).predictions for value in (hard, None))
    np.testing.assert_allclose(taught, plain, atol=1e-4)
    assert dataclasses.asdict(student(data, hard, tmp_path).state)["epoch"] == 3
