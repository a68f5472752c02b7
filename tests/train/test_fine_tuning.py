from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import torch
from safetensors.torch import load

from ripieno.library import Library
from ripieno.models.build import build
from ripieno.train import TrainingConfig, job, train_job
from ripieno.train.checkpoint import TrainingState
from ripieno.train.evaluate import predict
from ripieno.train.fine_tuning import WeightAverage, fine_tuning_optimizer
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.train.optim import OptimizerConfig, learning_rates
from ripieno.types import Configuration, Dataset, Input, Job, Member, classification

if importlib.util.find_spec("timm") is None:
    pytest.skip("needs the extra timm", allow_module_level=True)

SMALL: Configuration = {"backbone": "test_efficientnet", "resolution": 32, "batch_size": 72, "learning_rate": 0.01}
DEPTH = 6
"""Layers of the backbone: its stem and five blocks."""


@pytest.fixture
def config(config: TrainingConfig) -> TrainingConfig:
    return dataclasses.replace(config, family="timm")


def train(config: TrainingConfig, configuration: Configuration, stop: int) -> Member:
    outcome = train_job(config, Job(3, configuration, 0, stop))
    assert outcome.failure is None, outcome.failure
    assert outcome.member is not None
    return outcome.member


def weights(config: TrainingConfig, member: Member) -> bytes:
    return Library(config.run).weights_path(member.id).read_bytes()


@pytest.fixture
def trainer(config: TrainingConfig, digits: Dataset) -> Iterator[NetworkTrainer]:
    trainer = NetworkTrainer(config)
    with closing(trainer):
        yield trainer


def test_rates_fall_with_each_layer_before_the_head_and_norms_do_not_decay() -> None:
    network = build("timm:test_efficientnet", SMALL, Input((8, 8, 1)), classification("abc"))
    optimizer = fine_tuning_optimizer(OptimizerConfig(weight_decay=0.1, optimizer="adamw"), network.body, 0.5)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    scale, decay = (
        {n: groups[id(p)][k] for n, p in network.body.named_parameters()} for k in ("lr_scale", "weight_decay")
    )
    assert scale["head.1.weight"] == scale["head.1.bias"] == 1
    assert scale["backbone.conv_head.weight"] == 0.5
    assert scale["backbone.blocks.3.0.conv_pw.weight"] == 0.25
    assert scale["backbone.conv_stem.weight"] == min(scale.values()) == 0.5**DEPTH
    assert decay["head.1.weight"] == decay["backbone.conv_stem.weight"] == 0.1
    assert decay["head.1.bias"] == decay["backbone.bn1.weight"] == 0


def test_a_step_uses_each_layers_rate(trainer: NetworkTrainer, digits: Dataset) -> None:
    trainer.start(Job(3, {**SMALL, "layer_decay": 0.5}, 0, 1), digits)
    trainer.step(torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.long), 0.8)
    rates = {group["lr"] for group in trainer.optimizer.param_groups}
    assert max(rates) == 0.8
    assert min(rates) == 0.8 * 0.5**DEPTH


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_killed_trial_resumes_to_the_same_weights_and_averages(
    config: TrainingConfig, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = {**SMALL, "ema": 0.9, "dropout": 0.2, "drop_path": 0.2, "flip": True, "optimizer": optimizer}
    other = dataclasses.replace(config, run=config.run.with_name("other"))
    whole = train(other, configuration, 3)

    def write_and_die(path: object, progress: TrainingState, tensors: object) -> None:
        write(path, progress, tensors)
        if progress.epoch == 2:
            raise KeyboardInterrupt

    write = job.write_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(job, "write_checkpoint", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            train_job(config, Job(3, configuration, 0, 3))
    resumed = train(config, configuration, 3)
    assert weights(config, resumed) == weights(other, whole)
    assert [e.valid_loss for e in resumed.curve] == [e.valid_loss for e in whole.curve]


def test_the_average_is_kept_and_predicts(trainer: NetworkTrainer, digits: Dataset) -> None:
    trainer.start(Job(3, {**SMALL, "ema": 0.9}, 0, 1), digits)
    trainer.epoch()
    kept = load(trainer.weights())
    average = trainer.average
    assert average is not None
    assert all(torch.equal(kept[name], tensor) for name, tensor in average.network.state_dict().items())
    assert not torch.equal(kept["body.head.1.weight"], trainer.network.state_dict()["body.head.1.weight"])
    inputs = digits.inputs[:20]
    assert np.array_equal(trainer.predict(inputs), predict(average.network, inputs))


def test_an_average_begins_at_the_first_weights_and_reaches_its_decay() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, 0.5)
    expected = 0.0
    for step in range(1, 6):
        with torch.no_grad():
            layer.weight.fill_(float(step))
        average.update(layer)
        decay = 0.0 if step == 1 else min(0.5, 1 - step ** (-2 / 3))
        expected = decay * expected + (1 - decay) * step
        assert average.network.weight.item() == pytest.approx(expected)


def test_a_frozen_backbone_is_kept_as_it_was(trainer: NetworkTrainer, digits: Dataset) -> None:
    trainer.start(Job(3, {**SMALL, "frozen": "all", "ema": 0.9, "dropout": 0.1}, 0, 1), digits)
    before = load(trainer.weights())
    trainer.epoch()
    changed = {name for name, tensor in load(trainer.weights()).items() if not torch.equal(tensor, before[name])}
    assert changed == {"body.head.1.weight", "body.head.1.bias"}


def test_a_member_is_of_the_family_of_its_backbone(config: TrainingConfig, digits: Dataset) -> None:
    from ripieno.backends.torch import load_network

    member = train(config, {**SMALL, "ema": 0.9}, 1)
    assert member.family == "timm:test_efficientnet"
    library = Library(config.run)
    network = load_network(library.member(member.id), library.weights_path(member.id))
    found = predict(network, digits.inputs[digits.rows("valid")])
    assert np.allclose(found, library.predictions(member.id), atol=1e-5)


def test_images_reach_the_backbone_normalised_as_it_was_trained(trainer: NetworkTrainer, digits: Dataset) -> None:
    trainer.start(Job(3, SMALL, 0, 1), digits)
    (inputs, _), *_ = next(trainer.pipeline.batches(1))
    mean = 255 * (0.485 + 0.456 + 0.406) / 3
    darkest = -mean / (255 * (0.229 + 0.224 + 0.225) / 3)
    assert inputs.min().item() == pytest.approx(darkest)


def test_images_that_grow_are_predicted_in_smaller_batches() -> None:
    network = build("timm:test_byobnet", {"resolution": 512}, Input((8, 8, 1)), classification("abc"))
    sizes: list[int] = []
    network.body.backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    predict(network, np.zeros((9, 8, 8, 1), np.uint8))
    assert sizes == [8, 1]


def test_a_hyperparameter_of_another_family_is_refused(config: TrainingConfig) -> None:
    outcome = train_job(config, Job(3, {**SMALL, "width": 8}, 0, 1))
    assert outcome.failure is not None
    assert "'width' is not a hyperparameter of timm: it must be one of backbone, batch_size" in outcome.failure.message


def test_the_warm_up_is_a_share_of_the_job() -> None:
    rates = learning_rates(OptimizerConfig(learning_rate=1.0, warm_up=0.5), 0, 1, 1, 100)
    assert int(np.argmax(rates)) == 49 or rates[49] == pytest.approx(max(rates), rel=0.2)
    assert learning_rates(OptimizerConfig(learning_rate=1.0, warm_up=0.0), 0, 1, 1, 100)[0] == pytest.approx(
        1.0, rel=0.01
    )
