"""Training of networks that predict pixels: losses of masks, predictions that stay on disk, whole trials."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from ripieno.backends.export import export_onnx
from ripieno.backends.onnx import open_file
from ripieno.data.dataset import open_dataset, write_dataset
from ripieno.library import Library
from ripieno.library.prediction_arrays import empty_predictions
from ripieno.tasks.registry import kind_of
from ripieno.train import TrainingConfig, train_job
from ripieno.train.evaluate import predict, predict_rows
from ripieno.train.losses import TrainingLoss, balanced_weights, dice_loss, loss_config
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.types import IGNORED, Configuration, Job
from tests.coloured_squares import coloured_squares

CPU = torch.device("cpu")
TINY: Configuration = {"width": 8, "levels": 2, "batch_size": 2, "learning_rate": 0.01}


def make_loss(**configuration: str | float) -> TrainingLoss:
    data = coloured_squares()
    return TrainingLoss(loss_config(configuration, data.task), data.task, data.targets, CPU)


def certain_logits(masks: torch.Tensor, sharp: float = 20.0) -> torch.Tensor:
    """Return logits of three classes that are all but certain of `masks`."""
    hot = torch.nn.functional.one_hot(masks.long().clamp(max=2), 3)
    return sharp * hot.permute(0, 3, 1, 2).float()


def test_the_default_loss_is_cross_entropy_plus_dice() -> None:
    masks = torch.randint(0, 3, (2, 6, 7), dtype=torch.uint8)
    logits = torch.randn(2, 3, 6, 7)
    entropy = torch.nn.functional.cross_entropy(logits, masks.long())
    assert make_loss(training_loss="cross-entropy")(logits, masks) == pytest.approx(entropy.item(), rel=1e-6)
    assert make_loss()(logits, masks) == pytest.approx((entropy + dice_loss(logits, masks)).item(), rel=1e-6)


def test_the_dice_loss_is_that_of_its_definition() -> None:
    masks = torch.randint(0, 2, (2, 6, 7), dtype=torch.uint8)  # the third class is absent
    masks[0, :2] = IGNORED
    logits = torch.randn(2, 3, 6, 7)
    counted = (masks != IGNORED).numpy()
    probabilities = logits.softmax(1).permute(0, 2, 3, 1).numpy()[counted]
    truth = np.eye(3)[masks.numpy()[counted]]
    dice = 2 * (probabilities * truth).sum(0) / (probabilities.sum(0) + truth.sum(0))
    assert dice_loss(logits, masks).item() == pytest.approx(1 - dice[:2].mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["cross-entropy", "cross-entropy-dice"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_ignored_pixels_change_neither_loss_nor_gradient(name: str, weights: str) -> None:
    loss = make_loss(training_loss=name, class_weights=weights, label_smoothing=0.1)
    masks = torch.randint(0, 3, (2, 6, 7), dtype=torch.uint8)
    masks[:, 0] = IGNORED
    logits = torch.randn(2, 3, 6, 7, requires_grad=True)
    value = loss(logits, masks)
    value.backward()
    assert not logits.grad[:, :, 0].any()
    assert logits.grad[:, :, 1:].any()
    changed = logits.detach().clone()
    changed[:, :, 0] += 5 * torch.randn(2, 3, 7)
    assert loss(changed, masks).item() == pytest.approx(value.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["cross-entropy", "cross-entropy-dice"])
def test_a_batch_of_ignored_pixels_alone_has_no_loss(name: str) -> None:
    logits = torch.randn(2, 3, 6, 7, requires_grad=True)
    loss = make_loss(training_loss=name)(logits, torch.full((2, 6, 7), IGNORED, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_certain_and_true_predictions_have_almost_no_loss() -> None:
    masks = torch.randint(0, 3, (2, 6, 7), dtype=torch.uint8)
    assert make_loss()(certain_logits(masks), masks).item() < 1e-4
    assert make_loss()(certain_logits((masks + 1) % 3), masks).item() > 10


def test_balanced_weights_are_those_of_the_pixels_of_the_chosen_masks() -> None:
    data = coloured_squares()
    rows = data.rows("train")
    found = balanced_weights(data.targets, data.task, rows)
    counts = np.array([(data.targets[rows] == i).sum() for i in range(3)])
    assert found * counts == pytest.approx(np.full(3, counts.sum() / 3), rel=1e-5)
    assert not np.allclose(found, balanced_weights(data.targets, data.task))


def test_a_network_learns_and_its_predictions_stay_in_a_file(tmp_path: Path) -> None:
    data = coloured_squares()
    trainer = NetworkTrainer(TrainingConfig(run=tmp_path, family="unet"))
    trainer.start(Job(0, TINY, 0, 8), data)
    with closing(trainer):
        losses = [trainer.epoch() for _ in range(8)]
        rows = data.rows("valid")
        predictions = predict_rows(trainer, data, rows)
    assert losses[-1] < losses[0] / 3
    assert isinstance(predictions, np.memmap)
    assert predictions.dtype == np.float16
    assert kind_of(data.task).scores(predictions, data.targets[rows], data.task)["mean_iou"] > 0.7
    whole = predict(trainer.network, data.inputs, rows=rows)
    assert whole.dtype == np.float32
    assert np.abs(whole - predictions).max() < 1e-3


def test_predictions_of_pixels_are_made_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = coloured_squares()
    trainer = NetworkTrainer(TrainingConfig(run=tmp_path, family="unet"))
    trainer.start(Job(0, TINY, 0, 1), data)
    sizes = []

    def counted(inputs: np.ndarray) -> np.ndarray:
        sizes.append(len(inputs))
        return predict(trainer.network, inputs)

    monkeypatch.setattr(trainer, "predict", counted)
    with closing(trainer):
        once = predict_rows(trainer, data, data.rows("valid"))
        monkeypatch.setattr("ripieno.train.evaluate.BLOCK_BYTES", 24 * 33 * 3 * 4 * 5)
        blocks = predict_rows(trainer, data, data.rows("valid"))
    assert sizes == [12, 5, 5, 2]
    assert np.abs(once - blocks).max() < 1e-3


def test_empty_predictions_of_pixels_leave_no_file(tmp_path: Path) -> None:
    data = write_dataset(coloured_squares(), tmp_path / "dataset")
    empty = empty_predictions(data, 7)
    empty[:] = 0.5
    assert empty.shape == (7, 24, 33, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_a_trial_makes_a_member_that_is_resumed_and_exported(tmp_path: Path) -> None:
    data = write_dataset(coloured_squares(), tmp_path / "dataset")
    config = TrainingConfig(run=tmp_path, dataset=tmp_path / "dataset", family="unet")
    first = train_job(config, Job(0, TINY, 0, 1))
    assert first.failure is None
    result = train_job(config, Job(0, TINY, 1, 4))
    assert result.failure is None
    member = result.member
    assert member is not None
    assert member.losses["valid_mean_iou"] > 0.3
    assert member.curve[-1].valid_score == pytest.approx(member.losses["valid_mean_iou"])
    library = Library(tmp_path)
    stored = library.predictions(member.id)
    assert stored.dtype == np.float16
    target = library.onnx_path(member.id)
    assert export_onnx(member, library.weights_path(member.id), target) < 1e-4
    rows = data.rows("valid")
    (served,) = open_file(target.read_bytes())(np.asarray(data.inputs[rows]))
    assert served.shape == (len(rows), 24, 33, 3)
    assert np.abs(served - stored).max() < 2e-3


def test_folds_validate_each_mask_by_a_model_without_it(tmp_path: Path) -> None:
    data = coloured_squares()
    folds = np.where(data.split == 0, np.arange(len(data.split)) % 2, 0).astype(np.uint8)
    folded = dataclasses.replace(data, folds=folds, split=np.where(data.split == 1, 0, data.split).astype(np.uint8))
    write_dataset(folded, tmp_path / "dataset")
    config = TrainingConfig(run=tmp_path, dataset=tmp_path / "dataset", family="unet")
    result = train_job(config, Job(0, TINY, 0, 1))
    assert result.failure is None
    stored = Library(tmp_path).predictions(result.job.member)
    assert stored.shape[0] == len(open_dataset(tmp_path / "dataset").rows("valid"))
