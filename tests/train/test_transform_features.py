from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ripieno import Library
from ripieno.backends.torch import load_network
from ripieno.data import load_dataset, write_dataset
from ripieno.train import TrainingConfig, train_job
from ripieno.train.evaluate import predict
from ripieno.train.head_fit import fit_head
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.types import Dataset, Job, Member

Train = Callable[[int, int], Member]
CONFIGURATION = {"width_factor": 0.1, "weight_decay": 0.01}


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Sines of three frequencies in noise, the last one shorter."""
    generator = np.random.default_rng(0)
    classes = np.arange(90) % 3
    phases, times = generator.uniform(0, 6, (90, 1)), np.arange(32) / 32
    series = np.sin(2 * np.pi * times * (classes[:, None] + 2) + phases) + generator.normal(0, 0.3, (90, 32))
    series = series[:, :, None].astype(np.float32)
    series[classes == 2, 25:] = np.nan
    return write_dataset(load_dataset((series, classes), kind="series", folds=0), tmp_path_factory.mktemp("waves"))


@pytest.fixture(params=["minirocket", "hydra"])
def config(request: pytest.FixtureRequest, waves: Dataset, tmp_path: Path) -> TrainingConfig:
    assert waves.path is not None
    return TrainingConfig(run=tmp_path / "run", dataset=waves.path, family=request.param, epochs=3, seed=7)


def train(config: TrainingConfig, start: int, stop: int) -> Member:
    result = train_job(config, Job(0, CONFIGURATION, start, stop))
    assert result.failure is None, result.failure
    assert result.member is not None
    return result.member


def test_a_member_has_the_share_of_the_features_of_its_epoch(config: TrainingConfig, waves: Dataset) -> None:
    few, all_ = train(config, 0, 1), train(config, 1, 3)
    library = Library(config.run)
    weights = [load_file(library.weights_path(member.id))["body.head.weight"] for member in (few, all_)]
    assert weights[0].shape[1] == -(-weights[1].shape[1] // 3)
    assert all_.losses["valid_accuracy"] > 0.9
    for member in (few, all_):
        network = load_network(member, library.weights_path(member.id))
        found = predict(network, np.asarray(waves.inputs), rows=waves.rows("valid"))
        np.testing.assert_allclose(found, library.predictions(member.id), atol=1e-5)


def test_a_resumed_trial_has_the_same_weights(config: TrainingConfig, tmp_path: Path) -> None:
    train(config, 0, 1)
    resumed = train(config, 1, 3)
    elsewhere = dataclasses.replace(config, run=tmp_path / "whole")
    whole = train(elsewhere, 0, 3)
    content = [Library(c.run).weights_path(m.id).read_bytes() for c, m in ((config, resumed), (elsewhere, whole))]
    assert content[0] == content[1]
    assert [e.valid_loss for e in resumed.curve] == [e.valid_loss for e in whole.curve]


def test_the_first_features_stay_the_same(config: TrainingConfig, waves: Dataset) -> None:
    trainer = NetworkTrainer(config)
    trainer.start(Job(0, CONFIGURATION, 0, 3), waves)
    assert trainer.transform is not None
    rows, found = waves.rows("train"), []
    for epoch in (1, 2, 3):
        trainer.transform.use_epoch(epoch)
        found.append(trainer.transform.at(rows))
    assert found[0].shape[1] < found[1].shape[1] < found[2].shape[1]
    x = trainer.network.normalise(torch.from_numpy(np.asarray(waves.inputs[rows])))
    torch.testing.assert_close(trainer.network.body.features(x), found[2])
    for fewer in found[:2]:
        assert torch.equal(fewer, found[2][:, : fewer.shape[1]])


def test_the_penalty_is_the_square_root_of_the_weight_decay(config: TrainingConfig, waves: Dataset) -> None:
    trainer = NetworkTrainer(config)
    trainer.start(Job(0, CONFIGURATION, 0, 3), waves)
    trainer.epoch()
    assert trainer.transform is not None
    rows = trainer.transform.rows
    features, targets = trainer.transform.at(rows), torch.tensor(waves.targets[rows].tolist())
    losses = {}
    for penalty in (0.03, 0.1, 0.3):
        head = torch.nn.Linear(features.shape[1], 3)
        losses[penalty] = fit_head(head, features, targets, torch.nn.functional.cross_entropy, penalty)
    with torch.no_grad():
        own = float(torch.nn.functional.cross_entropy(trainer.transform.head(features), targets))
    assert min(losses, key=lambda penalty: abs(losses[penalty] - own)) == 0.1
