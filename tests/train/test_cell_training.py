"""Training of networks of cells, of series too: hyperparameters by kind of data, and a trial that is resumed."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ripieno.data import load_dataset
from ripieno.errors import ModelError
from ripieno.train import TrainingConfig
from ripieno.train.network_trainer import NetworkTrainer, check_hyperparameters
from ripieno.types import Configuration, Dataset, Job

CELL: Configuration = {"cell": "lstm(-1)+sep7-se(-2);max3(0)+gru(-1)", "filters": 4, "motifs": 2, "normal_cells": 1}
TRAINED: Configuration = {**CELL, "dropout": 0.2, "jitter": 0.1, "batch_size": 16}


@pytest.fixture
def waves() -> Dataset:
    draws, labels = np.random.default_rng(0), np.arange(90) % 2
    series = np.sin(np.arange(24) * (0.3 + 0.4 * labels[:, None])) + 0.1 * draws.standard_normal((90, 24))
    series[::7, 16:] = np.nan
    return load_dataset((series[:, :, None].astype(np.float32), labels), kind="series", folds=0)


def test_hyperparameters_of_augmentation_are_those_of_the_data() -> None:
    check_hyperparameters("cell", TRAINED, "series")
    check_hyperparameters("cell", {"filters": 4, "max_zoom": 0.1}, "image")
    with pytest.raises(ModelError, match="'max_zoom' is not a hyperparameter of cell"):
        check_hyperparameters("cell", {"max_zoom": 0.1}, "series")


def test_a_trial_of_cells_learns_and_resumes_to_the_same_weights(waves: Dataset, tmp_path: Path) -> None:
    config = TrainingConfig(run=tmp_path, dataset=tmp_path, family="cell", epochs=2)
    job = Job(3, {**TRAINED, "learning_rate": 0.01, "epoch_samples": 200}, 0, 2)
    with closing(NetworkTrainer(config)) as whole:
        whole.start(job, waves)
        first = whole.epoch()
        checkpoint = whole.tensors()
        assert whole.epoch() < first
    with closing(NetworkTrainer(dataclasses.replace(config))) as resumed:
        resumed.start(job, waves)
        resumed.load(checkpoint)
        resumed.epoch()
    assert whole.tensors().keys() == resumed.tensors().keys()
    for name, tensor in whole.tensors().items():
        assert np.array_equal(tensor, resumed.tensors()[name]), name
