"""A small data set of real digits, prepared once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ripieno.data import load_dataset, write_dataset
from ripieno.train import TrainingConfig
from ripieno.types import Dataset


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """300 digits of 8x8 pixels: 216 to train on, 24 to validate."""
    source = load_digits()
    images = (source.images[:300, :, :, None] * 15).astype(np.uint8)
    return write_dataset(load_dataset((images, source.target[:300])), tmp_path_factory.mktemp("digits"))


@pytest.fixture
def config(digits: Dataset, tmp_path: Path) -> TrainingConfig:
    assert digits.path is not None
    return TrainingConfig(run=tmp_path / "run", dataset=digits.path, family="resnet", epochs=9, seed=7)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Train with one thread, whatever earlier tests of the process have set: the last bits depend on the number."""
    torch.set_num_threads(1)
