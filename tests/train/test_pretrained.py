"""Trials on a pretrained backbone: the first epoch is a head on shared features, and a real member."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from ripieno import files
from ripieno.backends.torch import load_network
from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.backbones import BackboneRecord, weights_file
from ripieno.train import TrainingConfig, train_job
from ripieno.train.evaluate import predict
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.types import Configuration, Dataset, Job, Member

pytestmark = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")

NAME = "test_efficientnet"
HEAD: Configuration = {"resolution": 32, "frozen": "all", "batch_size": 24, "dropout": 0.1, "learning_rate": 1e-3}
TUNED: Configuration = {"resolution": 32, "frozen": "none", "batch_size": 24}


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of a small network of timm, as a run keeps them."""
    from ripieno.models.timm_network import make_backbone

    folder = tmp_path_factory.mktemp("kept")
    torch.manual_seed(5)
    content = save(make_backbone(NAME, 3).state_dict())
    record = BackboneRecord(NAME, "made.safetensors", "mit", hashlib.sha256(content).hexdigest())
    files.write_bytes(weights_file(folder, record.stem), content)
    files.write_json(weights_file(folder, record.stem).with_suffix(".json"), record)
    return folder


@pytest.fixture
def pretrained(config: TrainingConfig, kept: Path) -> TrainingConfig:
    config.run.mkdir(parents=True)
    (config.run / "backbones").symlink_to(kept / "backbones")
    stems = tuple(path.stem for path in (kept / "backbones").glob("*.json"))
    return dataclasses.replace(config, family=f"timm:{NAME}", weights=stems)


def train(config: TrainingConfig, configuration: Configuration, start: int, stop: int, trial: int = 3) -> Member:
    outcome = train_job(config, Job(trial, configuration, start, stop))
    assert outcome.failure is None, outcome.failure
    assert outcome.member is not None
    return outcome.member


def weights_of(config: TrainingConfig, member: Member) -> bytes:
    return Library(config.run).weights_path(member.id).read_bytes()


def elsewhere(config: TrainingConfig, tmp_path: Path) -> TrainingConfig:
    run = tmp_path / "other"
    run.mkdir()
    (run / "backbones").symlink_to((config.run / "backbones").resolve())
    return dataclasses.replace(config, run=run)


def test_the_first_epoch_is_a_member_that_shares_its_backbone(pretrained: TrainingConfig, digits: Dataset) -> None:
    member = train(pretrained, TUNED, 0, 1)
    assert member.backbone == f"{pretrained.weights[0]}-32"
    assert member.losses["valid_accuracy"] > 0.3  # of ten classes, by random features
    path = Library(pretrained.run).weights_path(member.id)
    assert path.stat().st_size < 50_000 < weights_file(pretrained.run, pretrained.weights[0]).stat().st_size
    network = load_network(member, path)
    found = predict(network, np.asarray(digits.inputs), rows=digits.rows("valid"))
    assert np.abs(found - Library(pretrained.run).predictions(member.id)).max() < 1e-5


def test_the_features_are_made_once_for_all_trials(pretrained: TrainingConfig) -> None:
    train(pretrained, TUNED, 0, 1)
    path = next((pretrained.run / "features").glob("*.npy"))
    assert path.stem == f"{pretrained.weights[0]}-32"
    made = path.stat().st_mtime_ns
    train(pretrained, {**HEAD, "weight_decay": 0.1}, 0, 1, trial=4)
    assert path.stat().st_mtime_ns == made
    train(pretrained, {**HEAD, "resolution": 40}, 0, 1, trial=5)
    assert len(list((pretrained.run / "features").glob("*.npy"))) == 2


def test_fine_tuning_begins_with_the_head_and_ends_the_sharing(pretrained: TrainingConfig, digits: Dataset) -> None:
    first = train(pretrained, TUNED, 0, 1)
    member = train(pretrained, TUNED, 1, 2)
    assert first.backbone
    assert not member.backbone
    assert member.curve[0] == first.curve[0]
    trainer = NetworkTrainer(pretrained)
    trainer.start(Job(3, TUNED, 1, 2), digits)
    trainer.epoch()
    head = load_file(Library(pretrained.run).weights_path(first.id))
    assert torch.equal(trainer.network.state_dict()["body.head.1.weight"], head["body.head.1.weight"])
    network = load_network(member, Library(pretrained.run).weights_path(member.id))
    found = predict(network, np.asarray(digits.inputs), rows=digits.rows("valid"))
    assert np.abs(found - Library(pretrained.run).predictions(member.id)).max() < 1e-5


def test_fine_tuning_keeps_the_statistics_of_the_pretrained_weights(pretrained: TrainingConfig) -> None:
    member = train(pretrained, TUNED, 0, 2)
    found = load_file(Library(pretrained.run).weights_path(member.id))
    before = load_file(weights_file(pretrained.run, pretrained.weights[0]))
    same = {name for name, tensor in before.items() if torch.equal(found[f"body.backbone.{name}"], tensor)}
    assert same == {name for name in before if "running_" in name or "num_batches" in name}


def test_a_frozen_backbone_is_shared_in_every_epoch_and_not_changed(
    pretrained: TrainingConfig, digits: Dataset
) -> None:
    first, later = train(pretrained, HEAD, 0, 1), train(pretrained, HEAD, 1, 4)
    assert first.backbone == later.backbone
    assert weights_of(pretrained, first) != weights_of(pretrained, later)
    assert later.losses["valid_accuracy"] > 0.3
    trainer = NetworkTrainer(pretrained)
    trainer.start(Job(3, HEAD, 0, 2), digits)
    before = {name: t.clone() for name, t in trainer.network.body.state_dict().items() if name.startswith("backbone.")}
    for _ in range(2):
        trainer.epoch()
    after = trainer.network.body.state_dict()
    assert all(torch.equal(t, after[name]) for name, t in before.items())


@pytest.mark.parametrize("configuration", [HEAD, TUNED, {**TUNED, "ema": 0.9}], ids=["head", "tuned", "ema"])
def test_a_resumed_trial_has_the_same_bits(
    pretrained: TrainingConfig, tmp_path: Path, configuration: Configuration
) -> None:
    train(pretrained, configuration, 0, 1)
    resumed = train(pretrained, configuration, 1, 3)
    other = elsewhere(pretrained, tmp_path)
    trainer = Library(other.run)
    train(other, configuration, 0, 1)
    for stop in (2, 3):  # every epoch from its checkpoint
        config = dataclasses.replace(other, deadline=0.0)
        assert train_job(config, Job(3, configuration, 1, 3)).failure is None
        files.remove_tree(trainer.member_path("00003-e003")) if stop == 2 else None
        straight = train(other, configuration, 1, 3)
    assert weights_of(pretrained, resumed) == weights_of(other, straight)


def test_the_seed_determines_the_members(pretrained: TrainingConfig, tmp_path: Path) -> None:
    other = elsewhere(pretrained, tmp_path)
    first, second = (train(config, {**HEAD, "ema": 0.9}, 0, 3) for config in (pretrained, other))
    assert weights_of(pretrained, first) == weights_of(other, second)


def test_the_average_of_the_weights_starts_from_the_fitted_head(pretrained: TrainingConfig, digits: Dataset) -> None:
    plain, averaged = (train(pretrained, {**TUNED, "ema": ema}, 0, 1, trial=n) for n, ema in ((1, 0.0), (2, 0.99)))
    assert np.array_equal(*(Library(pretrained.run).predictions(m.id) for m in (plain, averaged)))


def test_trials_differ_by_their_weight_decay(pretrained: TrainingConfig) -> None:
    members = [train(pretrained, {**TUNED, "weight_decay": w}, 0, 1, trial=n) for n, w in enumerate((1e-4, 1.0))]
    sure, flat = (Library(pretrained.run).predictions(m.id).max(1).mean() for m in members)
    assert sure > flat + 0.1


def test_without_weights_a_network_starts_random(pretrained: TrainingConfig) -> None:
    member = train(dataclasses.replace(pretrained, weights=()), TUNED, 0, 1)
    assert not member.backbone
    assert not (pretrained.run / "features").exists()


def test_images_of_one_channel_share_their_backbone_too(pretrained: TrainingConfig, digits: Dataset) -> None:
    assert digits.input.shape[-1] == 1
    member = train(pretrained, TUNED, 0, 1)
    network = load_network(member, Library(pretrained.run).weights_path(member.id))
    stem = network.body.backbone.conv_stem.weight
    kept = load_file(weights_file(pretrained.run, pretrained.weights[0]))["conv_stem.weight"]
    assert torch.allclose(stem, kept.sum(1, keepdim=True), atol=1e-6)


def test_weights_that_are_gone_are_an_error_in_one_line(pretrained: TrainingConfig) -> None:
    member = train(pretrained, TUNED, 0, 1)
    (pretrained.run / "backbones").unlink()
    with pytest.raises(LibraryError, match=r"backbones/.* does not exist"):
        load_network(member, Library(pretrained.run).weights_path(member.id))
    failure = train_job(pretrained, Job(9, TUNED, 0, 1)).failure
    assert failure is not None
    assert "does not exist" in failure.message
