from __future__ import annotations

import pytest

from ripieno.errors import AllocationError, EngineError, MissingExtraError
from ripieno.profiles import devices
from ripieno.profiles.devices import cpu_kind, cpu_partitions, local_devices, partition_kind
from ripieno.resources import usable_cores
from ripieno.types import Device

SMI = """\
0, GPU-aaa, NVIDIA H200, 512, 140000
1, GPU-bbb, Tesla V100-SXM2-16GB, 0, 16160
"""
CORES = list(usable_cores())


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: ())


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_nvidia_smi", lambda: SMI)


@pytest.mark.usefixtures("no_gpus")
def test_the_cpu_is_one_device_with_every_core_this_process_may_use() -> None:
    (cpu,) = local_devices("cpu")
    assert (cpu.name, cpu.type, list(cpu.cores)) == ("cpu:0", "cpu", CORES)
    assert local_devices("auto")[-1].cores == cpu.cores


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_a_divided_cpu_shares_cores_and_memory() -> None:
    whole = local_devices("cpu")[0]
    parts = local_devices(f"cpu:{len(CORES)}")
    assert [p.cores for p in parts] == [(core,) for core in CORES]
    assert len({p.kind for p in parts}) == 1
    assert parts[0].kind == partition_kind(whole.kind, len(CORES))
    assert sum(p.memory for p in parts) <= whole.memory * 1.1


def test_a_kind_is_a_plain_file_name() -> None:
    assert cpu_kind("AMD EPYC 9R14", 2) == "amd-epyc-9r14-2-cores"
    assert cpu_kind("Intel(R) Core(TM) i9-10940X CPU @ 3.30GHz", 28) == "intel-core-i9-10940x-28-cores"
    assert cpu_kind("AMD EPYC 7763 64-Core Processor", 1) == "amd-epyc-7763-1-core"


def test_a_part_of_a_kind_has_its_part_of_the_cores() -> None:
    assert partition_kind("x-4-cores", 4) == "x-1-core"
    assert partition_kind("x-4-cores", 3) is None
    assert partition_kind("nvidia-h200", 2) is None


@pytest.mark.usefixtures("two_gpus")
def test_gpus_come_before_the_cpu_with_their_free_memory() -> None:
    first, second, cpu = local_devices("auto")
    assert (first.name, first.kind, first.memory) == ("cuda:0", "nvidia-h200", 140000 << 20)
    assert (second.name, second.kind, cpu.name) == ("cuda:1", "tesla-v100-sxm2-16gb", "cpu:0")


@pytest.mark.usefixtures("two_gpus")
def test_a_list_takes_devices_in_its_order() -> None:
    assert [d.name for d in local_devices("cpu, cuda:1")] == ["cpu:0", "cuda:1"]
    assert [d.name for d in local_devices("cuda")] == ["cuda:0", "cuda:1"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("visible", "kinds"), [("1", ["tesla-v100-sxm2-16gb"]), ("GPU-b,0", None), ("", []), ("7,0", [])]
)
def test_hidden_gpus_are_not_there(monkeypatch: pytest.MonkeyPatch, visible: str, kinds: list[str] | None) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    expected = ["tesla-v100-sxm2-16gb", "nvidia-h200"] if kinds is None else kinds
    assert [d.kind for d in devices.gpus()] == expected


@pytest.mark.usefixtures("two_gpus")
def test_memory_taken_on_a_gpu_is_that_of_its_number() -> None:
    assert devices.used_gpu_memory("cuda:0") == 512 << 20


class Torch:
    """A stand-in for PyTorch with one part of a GPU."""

    class cuda:  # noqa: N801
        @staticmethod
        def device_count() -> int:
            return 1

        @staticmethod
        def get_device_name(number: int) -> str:
            return "NVIDIA H200 MIG 1g.18gb"

        @staticmethod
        def mem_get_info(number: int) -> tuple[int, int]:
            return 700, 1000


@pytest.mark.usefixtures("two_gpus")
def test_parts_of_a_gpu_are_asked_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-7a1b")
    monkeypatch.setattr(devices, "require", lambda _: Torch)
    assert devices.gpus() == (Device("cuda:0", "nvidia-h200-mig-1g-18gb", 700),)
    assert devices.used_gpu_memory("cuda:0") == 300


@pytest.mark.parametrize("text", [None, SMI])
def test_unknown_memory_of_a_gpu_is_an_error_and_not_zero(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    def absent(module: str) -> None:
        raise MissingExtraError(module)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_nvidia_smi", lambda: text)
    for need in (lambda _: Torch, absent):
        monkeypatch.setattr(devices, "require", need)
        with pytest.raises(EngineError, match=r"cannot read the memory use of cuda:5: .*: install one of them"):
            devices.used_gpu_memory("cuda:5")


@pytest.mark.usefixtures("two_gpus")
def test_a_backend_that_cannot_use_gpus_leaves_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runtime:
        @staticmethod
        def get_available_providers() -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(devices, "require", lambda _: Runtime)
    assert [d.name for d in local_devices("auto", "onnx")] == ["cpu:0"]
    with pytest.raises(AllocationError, match="installed onnx backend cannot run on 'cuda:0': pip install"):
        local_devices("cuda:0", "onnx")


@pytest.mark.usefixtures("no_gpus")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tpu", "unknown device 'tpu': expected auto"),
        ("cpu:x", "unknown device 'cpu:x'"),
        ("", "unknown device ''"),
        ("cpu:0", "cannot divide"),
        ("cpu:9999", "cannot divide"),
        ("cuda:0", r"device 'cuda:0' is not on this machine \(GPUs: none\)"),
        ("cpu,cpu", "contain cpu:0 more than once"),
    ],
)
def test_a_wrong_device_is_refused_in_one_line(spec: str, message: str) -> None:
    with pytest.raises(AllocationError, match=message) as caught:
        local_devices(spec)
    assert "\n" not in str(caught.value)


def test_parts_of_a_cpu_are_those_of_its_workers() -> None:
    whole = Device("cpu:0", "x-6-cores", 600, (1, 2, 3, 4, 5, 6))
    gpu = Device("cuda:0", "nvidia-h200", 1)
    assert cpu_partitions([gpu, whole]) == (
        Device("cpu:0", "x-3-cores", 300, (1, 2, 3)),
        Device("cpu:0", "x-2-cores", 200, (1, 2)),
    )
