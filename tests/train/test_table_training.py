"""Training of networks of tables: what they learn, from which rows they are prepared, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ripieno.data import write_dataset
from ripieno.errors import ModelError
from ripieno.library import Library
from ripieno.models.table import TableNetwork
from ripieno.tasks.registry import kind_of
from ripieno.train import TrainingConfig, train_job
from ripieno.train.network_trainer import NetworkTrainer, check_hyperparameters
from ripieno.types import Configuration, Dataset, Job
from tests.mixed_table import AGE, mixed_table

SMALL: Configuration = {"units": 32, "layers": 2, "epoch_samples": 2000, "learning_rate": 0.01, "embedding_size": 8}


@pytest.fixture
def config(tmp_path: Path) -> TrainingConfig:
    write_dataset(mixed_table(), tmp_path / "data")
    return TrainingConfig(run=tmp_path / "run", dataset=tmp_path / "data", family="table", epochs=3, seed=7)


def started(config: TrainingConfig, data: Dataset, **configuration: str | float) -> NetworkTrainer:
    trainer = NetworkTrainer(config)
    trainer.start(Job(0, {**SMALL, "network": "mlp-periodic", **configuration}, 0, 3), data)
    return trainer


def body_of(trainer: NetworkTrainer) -> TableNetwork:
    body = trainer.network.body
    assert isinstance(body, TableNetwork)
    return body


@pytest.mark.parametrize("network", ["mlp", "mlp-periodic"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_network_learns_a_mixed_table(network: str, kind: str, config: TrainingConfig) -> None:
    data = mixed_table(kind)
    trainer = started(config, data, network=network)
    for _ in range(3):
        trainer.epoch()
    rows = data.rows("valid")
    scores = kind_of(data.task).scores(trainer.predict(data.inputs[rows]), data.targets[rows], data.task)
    trainer.close()
    assert scores["accuracy" if kind == "classification" else "r2"] > (0.75 if kind == "classification" else 0.4)


def test_a_job_makes_a_member_named_after_its_network(config: TrainingConfig) -> None:
    done = train_job(config, Job(3, {**SMALL, "network": "mlp-periodic", "embedding": "piecewise-linear"}, 0, 1))
    assert done.failure is None
    member = Library(config.run).member("00003-e001")
    assert (member.family, member.format) == ("mlp-periodic", "safetensors")
    assert member.input.columns == mixed_table().columns


def test_a_resumed_trial_ends_with_the_same_weights(config: TrainingConfig) -> None:
    whole, half, resumed = (started(config, mixed_table()) for _ in range(3))
    for trainer in (whole, whole, half):
        trainer.epoch()
    resumed.load(half.tensors())
    resumed.epoch()
    assert resumed.weights() == whole.weights()


def test_the_preparation_is_fitted_to_the_training_rows_alone(config: TrainingConfig) -> None:
    data = mixed_table()
    inputs = np.array(data.inputs)
    inputs[data.split > 0, AGE] = 1e6
    layers = [
        body_of(started(config, changed)).normalise.highest  # type: ignore[union-attr]
        for changed in (data, dataclasses.replace(data, inputs=inputs))
    ]
    assert layers[0].tolist() == layers[1].tolist()
    assert float(layers[0][0]) <= 90


def test_hyperparameters_that_do_not_fit_tables_are_refused() -> None:
    check_hyperparameters("mlp", {"units": 8, "label_smoothing": 0.1, "dropout": 0.1})
    for name in ("mixup", "jitter", "flip", "width"):
        with pytest.raises(ModelError, match=f"'{name}' is not a hyperparameter of mlp: it must be one of batch_size"):
            check_hyperparameters("mlp", {name: 0.1})
