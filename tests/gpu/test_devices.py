"""Discovery of real GPUs, and profiles measured on one."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

import pytest
import torch

from ripieno.profiles import devices, local_devices, profile
from ripieno.profiles.devices import slug
from ripieno.profiles.energy import GPUCounter, open_counter, settle
from ripieno.train import TrainingConfig
from ripieno.train.energy import open_meter
from ripieno.types import Device
from tests.backends.made import Made

MIB = 1 << 20


@pytest.fixture
def listed() -> list[str]:
    """UUIDs that nvidia-smi lists."""
    if devices._nvidia_smi() is None:
        pytest.skip("needs nvidia-smi")
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_every_gpu_comes_before_the_cpu() -> None:
    found = local_devices("auto", "torch")
    count = torch.cuda.device_count()
    assert [d.name for d in found] == [*(f"cuda:{i}" for i in range(count)), "cpu:0"]
    assert [d.kind for d in found[:count]] == [slug(torch.cuda.get_device_name(i)) for i in range(count)]
    assert all(MIB < d.memory <= torch.cuda.get_device_properties(i).total_memory for i, d in enumerate(found[:count]))


def test_pytorch_finds_the_gpus_that_nvidia_smi_lists(listed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    by_command = [(d.name, d.kind) for d in devices.gpus()]
    monkeypatch.setattr(devices, "_nvidia_smi", lambda: None)
    assert [(d.name, d.kind) for d in devices.gpus()] == by_command
    assert len(listed) >= len(devices.gpus())


def test_a_gpu_may_be_made_visible_by_its_uuid(listed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed[-1])
    assert [d.name for d in devices.gpus()] == ["cuda:0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.gpus() == ()


@pytest.mark.parametrize("query", ["nvidia-smi", "PyTorch"])
def test_memory_in_use_grows_by_what_is_allocated(
    device: Device, query: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if query == "PyTorch":
        monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi there
    torch.zeros(1, device=device.name)
    before = devices.used_gpu_memory(device.name)
    held = torch.empty(256 * MIB, dtype=torch.uint8, device=device.name)
    assert devices.used_gpu_memory(device.name) - before >= 200 * MIB
    del held
    torch.cuda.empty_cache()


@pytest.mark.parametrize("backend", ["torch", "torch-graphs"])
def test_a_profile_separates_the_context_from_the_members_memory(made: Made, device: Device, backend: str) -> None:
    found = profile(made.path("torch"), made.member, device, backend, batch_sizes=(1, 8, 64), max_seconds=3)
    assert [p.batch_size for p in found.points] == [1, 8, 64]
    assert found.device == device.kind
    assert found.base > 50 * MIB  # a CUDA context
    sizes = [p.bytes for p in found.points]
    assert sizes == sorted(sizes)
    assert all(p.seconds > 0 for p in found.points)
    assert found.at(64).seconds < 64 * found.at(1).seconds


def test_joules_agree_with_the_power_that_nvml_reports(made: Made, device: Device) -> None:
    counter = open_counter(device)
    assert isinstance(counter, GPUCounter)
    trial = open_meter(TrainingConfig(device=device.name, sharing=2))
    assert trial is not None
    before, began, watts = settle(counter), time.perf_counter(), list[float]()
    while time.perf_counter() - began < 2:
        watts.append(counter.watts())
        time.sleep(0.05)
    idle = settle(counter) - before
    assert idle == pytest.approx(statistics.fmean(watts) * (time.perf_counter() - began), rel=0.25)
    assert trial.lap() == pytest.approx(idle / 2, rel=0.25)
    trial.close()
    found = profile(made.path("torch"), made.member, device, "torch", batch_sizes=(64,), energy=True, max_seconds=3)
    assert found.joules is not None
    # no GPU uses a kilowatt more at work than idle
    assert 0 < found.joules < 1000 * found.cost
