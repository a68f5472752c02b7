"""Augmentation read from a configuration, and a trial that is killed and resumed with it."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from ripieno.data.augment import Augmentation
from ripieno.data.image_operations import ImageOperations
from ripieno.errors import DataError, RipienoError
from ripieno.train import TrainingConfig
from ripieno.train.augmentation import augmentation
from ripieno.train.network_trainer import NetworkTrainer, check_hyperparameters
from ripieno.train.policy_augmentation import PolicyAugmentation
from ripieno.types import IGNORED, Configuration, Dataset, Job
from tests.coloured_squares import coloured_squares

TINY = {"stem_filters": 4, "width": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1, "batch_size": 24}
CHANGED: Configuration = {**TINY, "operations": 2, "max_zoom": 0.1, "erasing": 0.5, "mixup": 0.2}


def in_colour(digits: Dataset) -> Dataset:
    return dataclasses.replace(digits, inputs=np.repeat(digits.inputs, 3, axis=3), mean=(9.0,) * 3, std=(9.0,) * 3)


@pytest.mark.parametrize("configuration", [{}, {"operations": 0}, {"operations": 0, "magnitude": 0.3, "without": ""}])
def test_no_operations_are_the_augmentation_of_before(configuration: Configuration, digits: Dataset) -> None:
    assert augmentation({**configuration, "max_zoom": 0.2}, digits) == Augmentation(max_zoom=0.2)


def test_colour_is_drawn_for_images_of_three_channels_only(digits: Dataset) -> None:
    for dataset, expected in ((digits, False), (in_colour(digits), True)):
        found = augmentation({"operations": 1, "without": "solarize"}, dataset)
        assert isinstance(found, PolicyAugmentation)
        assert ("colour" in found.policy.drawn) == expected
        assert "solarize" not in found.policy.drawn


def test_the_range_of_float_images_is_that_of_the_training_images(digits: Dataset) -> None:
    inputs = digits.inputs.astype(np.float32) / 255
    floats = dataclasses.replace(digits, inputs=inputs, range=(0.0, 0.9), mean=(0.5,), std=(0.2,))
    for dataset, expected in ((floats, (0.0, 0.9)), (dataclasses.replace(floats, range=None), (0.1, 0.9))):
        found = augmentation({"operations": 1}, dataset)
        assert isinstance(found, PolicyAugmentation)
        assert isinstance(found.operations, ImageOperations)
        assert (found.operations.low, found.operations.high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("configuration", "line"),
    [
        ({"operations": 7}, "operations is 7: it must be a whole number from 0 to 3"),
        ({"operations": 1, "magnitude": 1.2}, "magnitude is 1.2: it must be a number from 0 to 1 or 'random'"),
        ({"policy": "rotate 0.5 2"}, "magnitude of rotate is 2.0: it must be a number from 0 to 1"),
    ],
)
def test_a_wrong_value_is_one_line(configuration: Configuration, line: str, digits: Dataset) -> None:
    with pytest.raises(DataError) as caught:
        augmentation(configuration, digits)
    assert str(caught.value) == line


def test_hyperparameters_of_policies_are_known_and_erasing_is_of_images() -> None:
    check_hyperparameters("resnet", CHANGED)
    with pytest.raises(RipienoError, match="'erasing' is not a hyperparameter of mlp"):
        check_hyperparameters("mlp", {"operations": 1, "erasing": 0.5})


def test_a_trial_resumed_from_its_checkpoint_trains_to_the_same_weights(
    config: TrainingConfig, digits: Dataset
) -> None:
    dataset, job = in_colour(digits), Job(3, CHANGED, 0, 2)
    with closing(NetworkTrainer(config)) as whole:
        whole.start(job, dataset)
        whole.epoch()
        checkpoint = whole.tensors()
        whole.epoch()
    with closing(NetworkTrainer(config)) as resumed:
        resumed.start(job, dataset)
        resumed.load(checkpoint)
        resumed.epoch()
    assert whole.tensors().keys() == resumed.tensors().keys()
    for name, tensor in whole.tensors().items():
        assert np.array_equal(tensor, resumed.tensors()[name]), name


def test_a_batch_of_the_pipeline_has_the_policy_of_the_configuration(config: TrainingConfig, digits: Dataset) -> None:
    plain, inverted = {**TINY, "learning_rate": 0.01}, {**TINY, "policy": "solarize 1.0 1.0"}
    batches = []
    for configuration in (plain, inverted):
        with closing(NetworkTrainer(config)) as trainer:
            trainer.start(Job(3, configuration, 0, 1), digits)
            batches.append(next(iter(trainer.pipeline.batches(1)))[0][0])
    mean, std = digits.mean[0], digits.std[0]
    assert torch.allclose(batches[1] * std + mean, 255 - (batches[0] * std + mean), atol=1e-3)


def test_masks_of_a_trial_move_with_its_images(tmp_path: Path) -> None:
    dataset = coloured_squares(noise=5.0)
    policy: Configuration = {"policy": "rotate 1.0 0.2; translate-x 1.0 0.3; brightness 0.5 0.2"}
    with closing(NetworkTrainer(TrainingConfig(run=tmp_path, family="unet"))) as trainer:
        trainer.start(Job(3, {"width": 4, "levels": 2, "batch_size": 4, **policy}, 0, 1), dataset)
        images, masks = next(iter(trainer.pipeline.batches(1)))[0]
    red_over_blue = images[:, 0] * dataset.std[0] + dataset.mean[0] - images[:, 2] * dataset.std[2] - dataset.mean[2]
    seen = torch.where(red_over_blue > 60, 1, torch.where(red_over_blue < -60, 2, 0))
    counted = masks != IGNORED
    assert 0.3 < counted.float().mean() < 0.95
    assert (seen == masks)[counted].float().mean() > 0.9
    assert (masks == 1).any()
