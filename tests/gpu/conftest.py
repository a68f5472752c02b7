"""A GPU for the tests of this folder; without one they are skipped."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ripieno.data import load_dataset, write_dataset
from ripieno.profiles import local_devices
from ripieno.train import TrainingConfig
from ripieno.types import Dataset, Device, Input
from tests.backends.made import Made, make

NETWORK = {"stem_filters": 8, "width": 8, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1}

# workers import the functions of gpu_work.py by name: they inherit this path
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def _only_with_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU: PyTorch sees none here")


@pytest.fixture
def device() -> Device:
    """The first GPU."""
    return local_devices("cuda:0")[0]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A member of random weights with its files and images."""
    export = importlib.util.find_spec("onnxscript") is not None
    return make(tmp_path_factory.mktemp("member"), NETWORK, Input((16, 16, 3)), export=export)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """300 digits of 8x8 pixels: 216 to train on, 24 to validate."""
    from sklearn.datasets import load_digits

    source = load_digits()
    images = (source.images[:300, :, :, None] * 15).astype(np.uint8)
    return write_dataset(load_dataset((images, source.target[:300])), tmp_path_factory.mktemp("digits"))


@pytest.fixture
def config(digits: Dataset, tmp_path: Path) -> TrainingConfig:
    assert digits.path is not None
    return TrainingConfig(tmp_path / "run", digits.path, "resnet", epochs=9, seed=7, device="cuda")
