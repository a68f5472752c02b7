"""Mixup and CutMix, on their own and in the trainer of networks."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ripieno.errors import ModelError
from ripieno.library import Library
from ripieno.train import TrainingConfig, batching, job, loading_strategy, train_job
from ripieno.train.checkpoint import TrainingState
from ripieno.train.losses import TrainingLoss, loss_config
from ripieno.train.mixing import ERASED, MixingConfig, Mixture, draw_mixture, erase, mixing_config
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.types import Configuration, DataKind, Dataset, Job, Member, Task, classification

TINY = {"stem_filters": 4, "width": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1, "batch_size": 24}
MIXED: Configuration = {**TINY, "mixup": 0.4, "cutmix": 1.0, "min_crop": 0.5, "colour": 0.2, "label_smoothing": 0.1}
CLASSES = classification("abc")
LABELS = Task("multilabel", (2,), ("even", "large"))
NUMBERS = Task("regression", (2,), ("digit", "negative"))
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("configuration", "task", "kind", "line"),
    [
        ({"mixup": -0.1}, CLASSES, "image", "mixup is -0.1: it must be a number of at least 0"),
        ({"cutmix": float("inf")}, CLASSES, "image", "cutmix is inf: it must be a number of at least 0"),
        ({"mixup": "much"}, CLASSES, "table", "mixup is 'much': it must be a number of at least 0"),
        ({"cutmix": True}, CLASSES, "image", "cutmix is True: it must be a number of at least 0"),
        ({"cutmix": 1.0}, NUMBERS, "image", "cutmix is 1.0, but it does not fit task regression: leave it out"),
        ({"cutmix": 1.0}, CLASSES, "series", "cutmix mixes images, but the inputs are of kind series: leave it out"),
        ({"erasing": 1.1}, CLASSES, "image", "erasing is 1.1: it must be a number from 0 to 1"),
        (
            {"erasing": 0.5},
            NUMBERS,
            "series",
            "erasing hides parts of images, but the inputs are of kind series: leave it out",
        ),
    ],
)
def test_a_value_that_is_wrong_or_does_not_fit_is_refused(
    configuration: Configuration, task: Task, kind: DataKind, line: str
) -> None:
    with pytest.raises(ModelError) as caught:
        mixing_config(configuration, task, kind)
    assert str(caught.value) == line


def test_no_mixing_fits_everything_and_draws_nothing() -> None:
    config = mixing_config({"mixup": 0, "cutmix": 0.0, "width": 3}, NUMBERS, "table")
    generator = np.random.default_rng(0)
    assert draw_mixture(config, torch.zeros(4, 2), generator) is None
    assert generator.random() == np.random.default_rng(0).random()


def test_erasing_hides_one_box_of_its_share_of_the_images() -> None:
    images = torch.ones(2000, 2, 20, 30)
    found = erase(MixingConfig(erasing=0.25), images, np.random.default_rng(0))
    hidden = found == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    is_changed = hidden.flatten(1).any(1)
    assert is_changed.float().mean() == pytest.approx(0.25, abs=0.03)
    rows, columns = hidden[:, 0].any(2), hidden[:, 0].any(1)
    boxes = rows[:, :, None] & columns[:, None]
    assert torch.equal(boxes, hidden[:, 0])
    assert ((rows[:, 1:] & ~rows[:, :-1]).sum(1) <= 1).all()  # one interval
    areas = boxes[is_changed].float().mean((1, 2))
    assert ERASED[0] * 0.7 < areas.min()
    assert areas.max() < ERASED[1] * 1.1
    # every pixel is hidden at times, and nothing is changed in place
    assert boxes.any(0).all()
    assert images.min() == 1


def test_no_erasing_draws_nothing_and_the_same_seed_hides_the_same() -> None:
    images, generator = torch.ones(8, 1, 5, 5), np.random.default_rng(0)
    assert erase(MixingConfig(mixup=1.0), images, generator) is images
    assert generator.random() == np.random.default_rng(0).random()
    first, second = (erase(MixingConfig(erasing=1.0), images, np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert (first == 0).flatten(1).any(1).all()


def one_hot_loss(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, smoothing: float) -> float:
    """Return the weighted cross-entropy of distributions `targets` (samples, classes), as torch smooths and weights."""
    smoothed = targets * (1 - smoothing) + smoothing / targets.shape[1]
    total = -(smoothed * weights * outputs.log_softmax(1)).sum()
    return float(total / (targets * weights).sum())


def test_the_loss_of_classes_is_that_of_mixed_targets_with_weights_and_smoothing() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    config = loss_config({"class_weights": "balanced", "label_smoothing": 0.2}, CLASSES)
    loss = TrainingLoss(config, CLASSES, labels, CPU)
    outputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    order, targets = torch.tensor([3, 4, 0, 5, 1, 2]), torch.eye(3)[torch.from_numpy(labels)]
    found = Mixture(0.7, order).loss(loss, outputs, torch.from_numpy(labels))
    mixed = 0.7 * targets + 0.3 * targets[order]
    weights = torch.tensor([6 / 9, 6 / 3, 6 / 6])
    assert found.item() == pytest.approx(one_hot_loss(outputs, mixed, weights, 0.2), rel=1e-5)


@pytest.mark.parametrize("task", [LABELS, NUMBERS], ids=lambda task: str(task.kind))
def test_the_gradient_of_labels_and_numbers_is_that_of_mixed_targets(task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(8, 2, generator=generator) > 0.4).numpy().astype(np.uint8)
    loss = TrainingLoss(loss_config({}, task), task, targets, CPU)
    outputs = torch.randn(8, 2, generator=generator, requires_grad=True)
    order, encoded = torch.randperm(8, generator=generator), torch.from_numpy(loss.encode(targets))
    (found,) = torch.autograd.grad(Mixture(0.6, order).loss(loss, outputs, encoded), outputs)
    (expected,) = torch.autograd.grad(loss(outputs, 0.6 * encoded + 0.4 * encoded[order]), outputs)
    assert torch.allclose(found, expected, atol=1e-6)


def test_mixup_mixes_values_and_leaves_the_batch_as_it_was() -> None:
    inputs = torch.rand(5, 3, 4, 4).to(memory_format=torch.channels_last)
    before, order = inputs.clone(), torch.tensor([4, 3, 2, 1, 0])
    mixed = Mixture(0.75, order).inputs(inputs)
    assert torch.allclose(mixed, 0.75 * before + 0.25 * before.flip(0))
    assert torch.equal(inputs, before)
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_cutmix_takes_a_box_and_its_share_is_that_of_the_pixels_kept() -> None:
    inputs = torch.arange(6.0)[:, None, None, None].expand(6, 2, 12, 9)
    generator = np.random.default_rng(0)
    kept = []
    for _ in range(1000):
        mixture = draw_mixture(MixingConfig(cutmix=1.0), inputs, generator)
        assert mixture is not None
        mixed = mixture.inputs(inputs)
        same = (mixture.order == torch.arange(6)).float()
        shares = (mixed == inputs).float().mean((1, 2, 3))
        assert torch.allclose(shares, mixture.kept + (1 - mixture.kept) * same, atol=1e-5)
        kept.append(mixture.kept)
    assert min(kept) < 0.1
    assert max(kept) > 0.95
    expected = 1 - (1 / 2 - 0.4 / 2 + 1 / 48)  # of (s - s^2 / 4)^2: a side s with s^2 uniform, cut off at the border
    assert np.mean(kept) == pytest.approx(expected, abs=0.03)


def test_shares_of_mixup_follow_the_beta_distribution() -> None:
    generator = np.random.default_rng(0)
    drawn = [draw_mixture(MixingConfig(mixup=0.2), torch.zeros(2, 1), generator) for _ in range(2000)]
    kept = np.array([mixture.kept for mixture in drawn if mixture is not None])
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    assert kept.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)


def test_with_both_each_batch_is_mixed_by_one_of_them() -> None:
    generator = np.random.default_rng(0)
    drawn = [draw_mixture(MixingConfig(0.5, 0.5), torch.zeros(4, 1, 8, 8), generator) for _ in range(400)]
    boxes = [mixture.box is not None for mixture in drawn if mixture is not None]
    assert len(boxes) == 400
    assert 160 < sum(boxes) < 240


def train(config: TrainingConfig, configuration: Configuration, stop: int = 2) -> Member:
    outcome = train_job(config, Job(3, configuration, 0, stop))
    assert outcome.failure is None, outcome.failure
    assert outcome.member is not None
    return outcome.member


def weights(config: TrainingConfig, member: Member) -> bytes:
    return Library(config.run).weights_path(member.id).read_bytes()


def elsewhere(config: TrainingConfig, name: str) -> TrainingConfig:
    return dataclasses.replace(config, run=config.run.with_name(name))


def test_a_killed_trial_with_mixing_ends_with_the_same_weights(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, whole = job.write_checkpoint, train(elsewhere(config, "whole"), MIXED)

    def write(path: Path, progress: TrainingState, *rest: Any) -> None:
        real(path, progress, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_checkpoint", write)
        with pytest.raises(KeyboardInterrupt):
            train(config, MIXED)
    resumed = train(config, MIXED)
    assert weights(config, resumed) == weights(elsewhere(config, "whole"), whole)
    assert [e.train_loss for e in resumed.curve] == [e.train_loss for e in whole.curve]


def test_mixing_does_not_depend_on_the_preparation_of_batches(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = weights(elsewhere(config, "whole"), train(elsewhere(config, "whole"), MIXED))
    monkeypatch.setitem(batching.BLOCK_BYTES, "cpu", 24 * 64 * 4)
    assert weights(config, train(config, MIXED)) == expected
    monkeypatch.setattr(loading_strategy, "SECONDS", 0.0)
    monkeypatch.setattr(loading_strategy, "GOAL", 0.0)
    spared = dataclasses.replace(elsewhere(config, "spared"), spare=1)
    assert weights(spared, train(spared, MIXED)) == expected


def test_each_epoch_and_each_trial_is_mixed_in_its_own_way(config: TrainingConfig, digits: Dataset) -> None:
    mixtures = []
    for trial in (3, 4):
        trainer = NetworkTrainer(config)
        trainer.start(Job(trial, {**TINY, "mixup": 0.4}, 0, 2), digits)
        step = trainer.step

        def keep(inputs: torch.Tensor, targets: torch.Tensor, rate: float, mixture: Any) -> torch.Tensor:
            mixtures.append(mixture.kept)
            return step(inputs, targets, rate, mixture)  # noqa: B023

        trainer.step = keep  # type: ignore[method-assign, assignment]
        with closing(trainer):
            trainer.epoch()
            trainer.epoch()
    assert len(set(mixtures)) == len(mixtures) == 4 * 9


def test_the_training_loss_is_that_of_the_mixtures(config: TrainingConfig, digits: Dataset) -> None:
    trainer = NetworkTrainer(config)
    trainer.start(Job(3, {**TINY, "mixup": 0.4, "batch_size": 216}, 0, 1), digits)
    with closing(trainer):
        ((inputs, targets),) = next(iter(trainer.pipeline.batches(1)))
        mixture = draw_mixture(trainer.mixing_config, inputs, np.random.default_rng(0))
        assert mixture is not None
        trainer.network.train()
        with torch.no_grad():
            logs = trainer.body(mixture.inputs(inputs)).log_softmax(1)
        first, second = (-logs[torch.arange(216), t].mean().item() for t in (targets, targets[mixture.order]))
        expected = mixture.kept * first + (1 - mixture.kept) * second
        assert trainer.step(inputs, targets, 0.1, mixture).item() == pytest.approx(expected, rel=1e-4)


def test_each_choice_changes_the_weights(config: TrainingConfig, digits: Dataset) -> None:
    found = set()
    for choice in ({}, {"mixup": 0.4}, {"cutmix": 1.0}, {"min_crop": 0.4}, {"colour": 0.4}):
        trainer = NetworkTrainer(config)
        trainer.start(Job(3, {**TINY, **choice}, 0, 1), digits)
        with closing(trainer):
            trainer.epoch()
        found.add(trainer.weights())
    assert len(found) == 5


def test_training_with_all_of_them_learns(config: TrainingConfig) -> None:
    configuration = {"width": 8, "learning_rate": 0.01, "mixup": 0.2, "cutmix": 0.2, "min_crop": 0.6, "colour": 0.2}
    assert train(config, {**TINY, **configuration}, 6).losses["valid_accuracy"] > 0.5
