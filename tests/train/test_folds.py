"""Training with folds: what validates was never trained on, the refit is kept, and a killed trial ends the same."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ripieno.backends.onnx import open_file
from ripieno.data import load_dataset, write_dataset
from ripieno.library import Library
from ripieno.train import TrainingConfig, train_job
from ripieno.train.checkpoint import fingerprint
from ripieno.train.evaluate import losses_of, predict
from ripieno.train.folds import FoldTrainer
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.types import Dataset, Job
from tests.train.test_job import TINY, elsewhere, kill_after, train, weights

MIXED = {**TINY, "max_zoom": 0.2, "mixup": 0.2}
FOREST = {"trees": 5, "min_samples_leaf": 1}


@pytest.fixture(scope="module")
def folded(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Digits, some 80 to train on, in two folds."""
    few = load_dataset((digits.inputs[:100], digits.targets[:100]), folds=2)
    return write_dataset(few, tmp_path_factory.mktemp("folded"))


@pytest.fixture
def fold_config(config: TrainingConfig, folded: Dataset) -> TrainingConfig:
    assert folded.path is not None
    return dataclasses.replace(config, dataset=folded.path)


class Memory:
    """Predicts with certainty the class of the samples that it was trained on, and of all others the same for each."""

    def start(self, job: Job, data: Dataset) -> None:
        rows = data.rows("train")
        self.job, self.classes, self.epochs = job, len(data.task.names), 0
        self.known = {data.inputs[row].tobytes(): int(data.targets[row]) for row in rows}

    def epoch(self) -> float:
        self.epochs += 1
        return 0.25

    def predict(self, inputs):
        found = np.full((len(inputs), self.classes), 1 / self.classes, np.float32)
        for row, sample in zip(found, inputs, strict=True):
            if (label := self.known.get(sample.tobytes())) is not None:
                row[:] = np.arange(self.classes) == label
        return found


def test_no_model_validates_samples_that_it_was_trained_on(folded: Dataset) -> None:
    trainer = FoldTrainer(Memory, 2)
    trainer.start(Job(0, {}, 0, 1, seed=5), folded)
    assert trainer.epoch() == 0.25
    rows = folded.rows("valid")
    held = trainer.predict_out_of_fold(folded)
    distinct = np.unique(folded.inputs[rows], axis=0, return_counts=True)[1].max() == 1
    assert distinct
    assert np.allclose(held, 0.1)
    assert losses_of(trainer.predict(folded.inputs[rows]), folded, rows)["valid_accuracy"] == 1
    assert {t.job.seed for t in (*trainer.held, trainer.refit)} == {5}
    assert [t.epochs for t in (*trainer.held, trainer.refit)] == [1, 1, 1]


def test_the_member_is_the_network_of_a_trial_without_folds(fold_config: TrainingConfig, folded: Dataset) -> None:
    member = train(fold_config, MIXED, 0, 2)
    library = Library(fold_config.run)
    rows = folded.rows("valid")
    stored = library.predictions(member.id)
    assert member.losses == pytest.approx(losses_of(stored, folded, rows))
    assert member.seconds == pytest.approx(sum(e.seconds for e in member.curve))
    whole = NetworkTrainer(elsewhere(fold_config))
    whole.start(Job(3, MIXED, 0, 2), folded)
    losses = [whole.epoch() for _ in range(2)]
    assert whole.weights() == weights(fold_config, member)
    assert not np.allclose(predict(whole.kept, folded.inputs, rows=rows), stored, atol=1e-3)
    assert all(e.train_loss != pytest.approx(loss) for e, loss in zip(member.curve, losses, strict=True))


def test_a_killed_trial_ends_with_the_same_bits(fold_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = train(fold_config, MIXED, 0, 3)
    again = elsewhere(fold_config)
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train_job(again, Job(3, MIXED, 0, 3))
    resumed = train(again, MIXED, 0, 3)
    assert weights(again, resumed) == weights(fold_config, undisturbed)
    predictions = [Library(c.run).predictions(resumed.id) for c in (again, fold_config)]
    assert np.array_equal(*predictions)
    assert [e.valid_loss for e in resumed.curve] == [e.valid_loss for e in undisturbed.curve]


def test_a_checkpoint_of_other_folds_is_of_another_trial(folded: Dataset) -> None:
    moved = dataclasses.replace(folded, folds=np.roll(np.asarray(folded.folds), 1))
    found = {fingerprint(7, 3, "resnet", TINY, d) for d in (folded, moved, dataclasses.replace(folded, folds=None))}
    assert len(found) == 3


@pytest.mark.parametrize("trainer", ["trees:random-forest", "trees:lightgbm"])
def test_trees_are_exported_as_the_refit_predicts(fold_config: TrainingConfig, folded: Dataset, trainer: str) -> None:
    chosen = {"rounds": 3, "num_leaves": 4} if "lightgbm" in trainer else FOREST
    config = dataclasses.replace(fold_config, trainer=trainer, family=trainer)
    member = train(config, chosen, 0, 1)
    library, rows = Library(config.run), folded.rows("valid")
    served = open_file(library.onnx_path(member.id).read_bytes())(folded.inputs[rows])[0]
    again = losses_of(np.asarray(served), folded, rows)
    assert again["valid_accuracy"] > member.losses["valid_accuracy"]
    assert member.losses == pytest.approx(losses_of(library.predictions(member.id), folded, rows))


class Diverging(Memory):
    """Has no finite loss where it is trained on all samples."""

    def epoch(self) -> float:
        return math.nan if len(self.known) > 60 else 0.0


def test_a_refit_that_diverges_ends_the_trial(fold_config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ripieno.train.job.make_trainer", lambda _config: Diverging())
    outcome = train_job(dataclasses.replace(fold_config, trainer="tests:Diverging"), Job(3, {}, 0, 1))
    assert outcome.failure is not None
    assert outcome.failure.reason == "diverged"
