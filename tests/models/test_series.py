from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ripieno.backends.export import export_onnx
from ripieno.backends.onnx import open_file
from ripieno.errors import ModelError
from ripieno.models.build import Network, build
from ripieno.models.lite import convolve_windows
from ripieno.models.series import BODIES
from ripieno.models.series_config import series_megaflops
from ripieno.models.series_parts import MaskedNorm, normalise_series, split_padding
from ripieno.train.checkpoint import weights_bytes
from ripieno.types import Configuration, Input, Member, Task, classification

LENGTH, CHANNELS = 40, 2
SERIES = Input((LENGTH, CHANNELS), "float32")
THREE = classification("abc")
CONFIGURATION: Configuration = {"width_factor": 0.2}


def made(name: str, task: Task = THREE, input: Input = SERIES, **configuration: float | str) -> Network:
    """Network with statistics of its batch norms, in evaluation mode."""
    torch.manual_seed(0)
    network = build(name, {**CONFIGURATION, **configuration}, input, task, (1.0, -1.0), (2.0, 3.0))
    network.train()
    network(noise(8))
    return network.eval()


def noise(samples: int, length: int = LENGTH) -> torch.Tensor:
    return torch.randn(samples, length, CHANNELS, generator=torch.Generator().manual_seed(1))


def padded(series: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(series, (0, 0, 0, LENGTH - series.shape[1]), value=torch.nan)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("normalisation", ["series", "channel"])
def test_a_padded_series_predicts_as_without_its_padding(name: str, normalisation: str) -> None:
    network = made(name, normalisation=normalisation)
    short = noise(3, 25)
    expected = network(short)
    found = network(torch.cat([padded(short), noise(2)]))[:3]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(torch.nan_to_num(padded(short))), expected, atol=1e-3)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("task", [Task("multilabel", (2,), ("a", "b")), Task("regression", (4,), ("t",) * 4)])
def test_a_network_has_a_head_for_its_task(name: str, task: Task) -> None:
    assert made(name, task)(noise(2)).shape == (2, *task.output)


@pytest.mark.parametrize("name", BODIES)
def test_a_network_takes_a_series_of_few_points(name: str) -> None:
    network = build(name, CONFIGURATION, Input((1, 1), "float32"), THREE)
    assert network.eval()(torch.ones(2, 1, 1)).isfinite().all()


@pytest.mark.parametrize("name", BODIES)
def test_an_exported_network_takes_padding_and_predicts_the_same(name: str, tmp_path: Path) -> None:
    network = made(name)
    (tmp_path / "weights.safetensors").write_bytes(weights_bytes(network))
    member = Member("00000-e001", 0, 1, name, CONFIGURATION, SERIES, THREE, {}, 0, 0.0, 0.0)
    assert export_onnx(member, tmp_path / "weights.safetensors", tmp_path / "model.onnx") < 1e-4
    series = torch.cat([padded(noise(3, 25)), noise(2)])
    (found,) = open_file((tmp_path / "model.onnx").read_bytes())(series.numpy())
    np.testing.assert_allclose(found, network.predict(series).detach().numpy(), atol=1e-4)


def test_a_configuration_may_name_the_network() -> None:
    named, fixed = made("series", network="fcn"), made("fcn")
    assert all(torch.equal(a, b) for a, b in zip(named.state_dict().values(), fixed.state_dict().values(), strict=True))
    with pytest.raises(ModelError, match="network is 'fcn', but the family is lite"):
        made("lite", network="fcn")
    with pytest.raises(ModelError, match="family series has no network"):
        made("series")
    with pytest.raises(ModelError, match="network is 'resnet': it must be one of lite"):
        made("series", network="resnet")


def test_bad_values_and_inputs_are_refused() -> None:
    with pytest.raises(ModelError, match="normalisation is 'none'"):
        made("fcn", normalisation="none")
    with pytest.raises(ModelError, match="width_factor is 0: it must be a number above 0"):
        made("fcn", width_factor=0)
    with pytest.raises(ModelError, match=r"samples have shape \(8, 8, 1\)"):
        build("fcn", {}, Input((8, 8, 1)), THREE)


def test_a_series_is_normalised_by_its_own_points() -> None:
    series = padded(noise(2, 30) * 5 + 3)
    x, mask = split_padding(series.transpose(1, 2))
    normalised = normalise_series(x, mask)
    points = normalised[:, :, :30]
    torch.testing.assert_close(points.mean(2), torch.zeros(2, CHANNELS), atol=1e-5, rtol=0)
    torch.testing.assert_close(points.std(2, correction=0), torch.ones(2, CHANNELS))
    assert not normalised[:, :, 30:].any()
    assert not normalise_series(torch.full((1, 1, 9), 7.0), torch.ones(1, 1, 9)).any()


def test_statistics_of_batch_norms_leave_padding_out() -> None:
    x, mask = split_padding(padded(noise(4, 30) * 2 + 5).transpose(1, 2))
    masked, plain = MaskedNorm(CHANNELS), torch.nn.BatchNorm1d(CHANNELS)
    found, expected = masked(x, mask), plain(x[:, :, :30])
    torch.testing.assert_close(masked.running_mean, plain.running_mean)
    torch.testing.assert_close(masked.running_var, plain.running_var)
    torch.testing.assert_close(found[:, :, :30], expected)


@pytest.mark.parametrize(("length", "taps", "dilation"), [(40, 5, 3), (32, 11, 1), (3, 3, 4)])
def test_a_convolution_by_windows_is_the_same(length: int, taps: int, dilation: int) -> None:
    padding = taps // 2 * dilation
    layer = torch.nn.Conv1d(4, 4, taps, 1, padding, dilation, groups=4, bias=False)
    inputs = [torch.randn(3, 4, length, generator=torch.Generator().manual_seed(0), requires_grad=True) for _ in "ab"]
    gradients = []
    for function, x in zip((layer, lambda x: convolve_windows(x, layer)), inputs, strict=True):
        layer.zero_grad()
        found = function(x)
        (found * torch.arange(length)).sum().backward()
        assert x.grad is not None
        assert layer.weight.grad is not None
        gradients.append((found, x.grad, layer.weight.grad.clone()))
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", BODIES)
def test_the_operations_of_a_network_are_counted(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network = made(name)
    with FlopCounterMode(display=False) as counter:
        network(noise(1))
    assert series_megaflops(name, CONFIGURATION, SERIES) == pytest.approx(counter.get_total_flops() / 2e6, rel=0.1)
