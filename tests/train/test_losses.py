"""Training losses and their hyperparameters, on their own and in the trainer of networks."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ripieno.errors import ModelError
from ripieno.tasks.registry import kind_of
from ripieno.train import TrainingConfig
from ripieno.train.losses import TrainingLoss, balanced_shares, balanced_weights, loss_config
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.types import Configuration, Dataset, Job, Task, classification

TINY = {"stem_filters": 4, "width": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1, "batch_size": 24}
CLASSES = classification("abc")
LABELS = Task("multilabel", (2,), ("even", "large"))
NUMBERS = Task("regression", (2,), ("digit", "negative"))
CPU = torch.device("cpu")


def as_labels(digits: Dataset) -> Dataset:
    targets = np.stack([digits.targets % 2 == 0, digits.targets >= 5], axis=1).astype(np.uint8)
    return dataclasses.replace(digits, targets=targets, task=LABELS)


def as_numbers(digits: Dataset) -> Dataset:
    values = np.stack([1000 + 20.0 * digits.targets, -digits.targets / 100], axis=1).astype(np.float32)
    return dataclasses.replace(digits, targets=values, task=NUMBERS)


def trained(
    config: TrainingConfig, data: Dataset, configuration: Configuration, epochs: int
) -> tuple[NetworkTrainer, NDArray[np.float32]]:
    """Train a network; return its trainer and its validation predictions."""
    trainer = NetworkTrainer(config)
    trainer.start(Job(3, {**TINY, **configuration}, 0, epochs), data)
    with closing(trainer):
        for _ in range(epochs):
            trainer.epoch()
    return trainer, trainer.predict(np.asarray(data.inputs[data.rows("valid")]))


@pytest.mark.parametrize(
    ("task", "configuration", "word"),
    [
        (CLASSES, {"class_weights": "some"}, "none, balanced"),
        (CLASSES, {"sampling": "stratified"}, "natural, balanced"),
        (CLASSES, {"training_loss": "huber"}, "one of cross-entropy"),
        (LABELS, {"label_smoothing": 0.1}, "does not fit task multilabel"),
        (LABELS, {"sampling": "balanced"}, "does not fit task multilabel"),
        (NUMBERS, {"class_weights": "balanced"}, "does not fit task regression"),
        (NUMBERS, {"training_loss": "cross-entropy"}, "one of squared-error, huber"),
    ],
)
def test_a_hyperparameter_that_does_not_fit_the_task_is_refused(
    task: Task, configuration: Configuration, word: str
) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        loss_config(configuration, task)
    assert "\n" not in str(caught.value)


def test_values_that_change_nothing_fit_every_task() -> None:
    neutral: Configuration = {"label_smoothing": 0.0, "class_weights": "none", "sampling": "natural", "width": 3}
    assert loss_config(neutral, NUMBERS).training_loss == "squared-error"


def test_balanced_weights_give_classes_and_both_values_of_a_label_the_same_weight() -> None:
    targets = np.array([0, 0, 0, 1])
    weights = balanced_weights(targets, classification("ab"))
    assert weights[targets[targets == 0]].sum() == pytest.approx(weights[targets[targets == 1]].sum())
    labels = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], np.uint8)
    assert balanced_weights(labels, LABELS).tolist() == [3.0, 3.0]


def test_balanced_shares_draw_all_classes_equally_often() -> None:
    targets = np.array([0, 0, 0, 2])
    assert np.bincount(targets, balanced_shares(targets)) == pytest.approx([0.5, 0.0, 0.5])


def test_class_weights_change_the_loss_as_torchs_weights_do() -> None:
    targets = np.array([0, 0, 0, 1])
    loss = TrainingLoss(
        loss_config({"class_weights": "balanced"}, classification("ab")), classification("ab"), targets, CPU
    )
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.5]])
    each = -outputs.log_softmax(1)[torch.arange(4), torch.from_numpy(targets)]
    expected = (each[:3].mean() + each[3]) / 2
    assert loss(outputs, torch.from_numpy(loss.encode(targets))).item() == pytest.approx(expected.item())


def test_errors_of_values_are_on_standardised_targets() -> None:
    targets = np.array([[10.0, -1.0], [30.0, -3.0]], np.float32)
    loss = TrainingLoss(loss_config({"training_loss": "huber"}, NUMBERS), NUMBERS, targets, CPU)
    encoded = loss.encode(targets)
    assert encoded.tolist() == [[-1.0, 1.0], [1.0, -1.0]]
    outputs = torch.tensor([[-1.0, 1.0], [4.0, -1.0]])
    assert loss(outputs, torch.from_numpy(encoded)).item() == pytest.approx(2.5 / 4)  # |3| - 1/2


@pytest.mark.parametrize("training_loss", ["squared-error", "huber"])
def test_a_regression_predicts_in_the_unit_of_each_target(
    config: TrainingConfig, digits: Dataset, training_loss: str
) -> None:
    data = as_numbers(digits)
    configuration = {"width": 8, "learning_rate": 0.01, "training_loss": training_loss}
    trainer, predictions = trained(config, data, configuration, 6)
    found = kind_of(data.task).losses(predictions, data.targets[data.rows("valid")], data.task)
    assert predictions.dtype == np.float32
    assert found["valid_r2"] > 0.5
    assert np.abs(predictions.mean(0) - data.targets.mean(0))[0] < 30  # of values around 1090
    assert "target_mean" in trainer.network.state_dict()


def test_several_labels_are_learnt(config: TrainingConfig, digits: Dataset) -> None:
    data = as_labels(digits)
    _, predictions = trained(config, data, {"width": 8, "learning_rate": 0.01}, 6)
    found = kind_of(data.task).losses(predictions, data.targets[data.rows("valid")], data.task)
    assert 0 <= predictions.min() <= predictions.max() <= 1
    assert found["valid_mean_average_precision"] > 0.8


def test_balanced_sampling_shows_a_rare_class_as_often_as_the_others(config: TrainingConfig, digits: Dataset) -> None:
    rows = digits.rows("train")
    targets = np.where(np.isin(np.arange(len(digits.targets)), rows[:6]), 0, 1 + digits.targets % 2)
    data = dataclasses.replace(digits, targets=targets, task=CLASSES)
    trainer = NetworkTrainer(config)
    trainer.start(Job(3, {**TINY, "sampling": "balanced"}, 0, 9), data)
    with closing(trainer):
        drawn = [targets[block.rows] for epoch in range(1, 9) for block in trainer.pipeline.plan.blocks(epoch)]
    shares = np.bincount(np.concatenate(drawn)) / len(np.concatenate(drawn))
    assert shares == pytest.approx([1 / 3] * 3, abs=0.05)


def test_augmentation_of_a_table_is_refused(config: TrainingConfig, digits: Dataset) -> None:
    table = dataclasses.replace(digits, kind="table")
    with pytest.raises(ModelError, match="'max_zoom' is not a hyperparameter"):
        NetworkTrainer(config).start(Job(3, {**TINY, "max_zoom": 0.1}, 0, 1), table)
