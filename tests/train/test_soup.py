"""Averages of weights: the mean is exact, and statistics of batch norms are those of the training samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ripieno.errors import LibraryError
from ripieno.models.build import Network
from ripieno.train import soup
from ripieno.train.soup import MeanWeights, compute_statistics, read_weights
from ripieno.types import Dataset, classification

SAMPLES, BATCH = 150, 64


def make_network(seed: int) -> Network:
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    body = nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(4, 2))
    return Network(body, classification("ab"), (120.0,) * 3, (60.0,) * 3).eval()


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Training images, and as many of the other splits, which are much lighter."""
    images = np.random.default_rng(0).integers(0, 60, (2 * SAMPLES, 6, 6, 3)).astype(np.uint8)
    images[1::2] += 150
    split = np.tile(np.asarray([0, 1, 0, 2], np.uint8), SAMPLES // 2)
    return Dataset("noise", images, np.arange(2 * SAMPLES) % 2, split, classification("ab"), (120.0,) * 3, (60.0,) * 3)


def test_the_mean_is_that_of_every_tensor() -> None:
    states = [make_network(seed).state_dict() for seed in range(3)]
    mean = MeanWeights()
    for state in states[:2]:
        mean.add(state)
    for found, used in ((mean.mean(), states[:2]), (mean.mean(states[2]), states)):
        assert found.keys() == states[0].keys()
        for name, tensor in found.items():
            assert tensor.dtype == states[0][name].dtype
            if tensor.is_floating_point():
                expected = np.mean([state[name].double().numpy() for state in used], axis=0).astype(np.float32)
                assert np.array_equal(tensor.numpy(), expected), name
    assert mean.count == 2


def test_the_mean_of_equal_networks_is_the_network() -> None:
    state, mean = make_network(1).state_dict(), MeanWeights()
    for _ in range(3):
        mean.add(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in mean.mean().items())


def test_statistics_are_the_mean_over_whole_batches_of_training_samples(data: Dataset) -> None:
    network = make_network(2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert compute_statistics(network, data)
    inputs = torch.from_numpy(data.inputs[data.rows("train")][: SAMPLES // BATCH * BATCH])
    with torch.no_grad():
        given = network.body[0](network.normalise(inputs)).split(BATCH)  # type: ignore[index]
    flat = [batch.movedim(1, 0).flatten(1) for batch in given]
    found = network.state_dict()
    assert torch.allclose(found["body.1.running_mean"], torch.stack([f.mean(1) for f in flat]).mean(0), atol=1e-5)
    assert torch.allclose(found["body.1.running_var"], torch.stack([f.var(1) for f in flat]).mean(0), rtol=1e-4)
    others = {name for name in before if not torch.equal(before[name], found[name])}
    assert others == {f"body.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert network.body[1].momentum == 0.1  # type: ignore[index]
    assert not any(module.training for module in network.modules())


def test_statistics_are_of_a_bounded_number_of_samples(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soup, "SAMPLES", 70)
    network = make_network(2)
    assert compute_statistics(network, data)
    assert int(network.state_dict()["body.1.num_batches_tracked"]) == 1


def test_a_network_without_batch_norms_has_no_statistics(data: Dataset) -> None:
    network = make_network(2)
    network.body[1] = nn.Identity()  # type: ignore[index]
    assert not compute_statistics(network, data)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state = make_network(3).state_dict()
    save_file(state, tmp_path / "same.safetensors")
    save_file({**state, "body.6.weight": torch.zeros(3, 4)}, tmp_path / "other.safetensors")
    assert read_weights(tmp_path / "same.safetensors", make_network(4)).keys() == state.keys()
    with pytest.raises(LibraryError, match=r"other.safetensors holds the weights of another network"):
        read_weights(tmp_path / "other.safetensors", make_network(4))
