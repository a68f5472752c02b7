"""The devices of this machine: every GPU, and the CPU whole or cut in parts of equal cores.

Nothing heavy is imported to find them: GPUs are asked of `nvidia-smi`, torch only where that is missing and a driver is
there, or where `CUDA_VISIBLE_DEVICES` names parts of a GPU (MIG). Memory is what is free now, cores are those that may
be used, within the limits of this process's control group.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ripieno.backends.backend_id import module_of, split
from ripieno.errors import AllocationError, EngineError, MissingExtraError, require
from ripieno.resources import free_memory, usable_cores
from ripieno.types import Device

_PROVIDERS = {"onnx": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_ON_GPUS = (("onnxruntime", "onnx"), ("torch", "torch"))
_QUERY = "index,uuid,name,memory.used,memory.free"


def local_devices(spec: str = "auto", backend: str | None = None) -> tuple[Device, ...]:
    """Devices of this machine named by `spec`, with the bytes free on each.

    `spec` is `auto` (every GPU, then the CPU) or a list such as `cuda:0,cpu`: `cuda` every GPU, `cuda:1` one of them,
    `cpu` all cores this process may use as one device `cpu:0`, `cpu:2` the same cores and memory cut in two equal
    devices `cpu:0` and `cpu:1`. With a `backend` (see
    `ripieno.backends.backend_id`, or `auto`), GPUs it cannot run on are left out of `auto`.

    Raises AllocationError when a part of `spec` is unknown, named twice or not on this machine.
    """
    parts = [part.strip() for part in spec.split(",")]
    if parts == ["auto"]:
        return (*(gpus() if _runs_on_gpus(backend) else ()), *_cpus(1))
    devices = [device for part in parts for device in _named(part, backend)]
    names = [device.name for device in devices]
    for name in names:
        if names.count(name) > 1:
            raise AllocationError(f"devices {spec!r} name {name} more than once: name each device once")
    return tuple(devices)


def _named(part: str, backend: str | None) -> Sequence[Device]:
    kind, _, number = part.partition(":")
    if kind not in ("cpu", "cuda") or (":" in part and not number.isdecimal()):
        raise AllocationError(f"no device {part!r}: use auto, cpu, cpu:2 (the CPU in two parts), cuda or cuda:0")
    if kind == "cpu":
        return _cpus(int(number) if number else 1)
    found = gpus()
    chosen = [gpu for gpu in found if not number or gpu.name == f"cuda:{int(number)}"]
    if not chosen:
        there = ", ".join(gpu.name for gpu in found) or "none"
        raise AllocationError(f"no device {part!r} on this machine (GPUs: {there}): use one of them, or cpu")
    if not _runs_on_gpus(backend):
        mend = "install a build of torch with CUDA" if "torch" in str(backend) else "pip install onnxruntime-gpu"
        raise AllocationError(f"the {backend} backend installed here cannot run on {part!r}: {mend}, or use cpu")
    return chosen


def _runs_on_gpus(backend: str | None) -> bool:
    """Whether the installed `backend` can use a GPU; True without one to ask. Only asked where it matters."""
    if backend is None or not gpus():
        return backend is None
    if backend == "auto":
        return any(importlib.util.find_spec(m) and _runs_on_gpus(b) for m, b in _ON_GPUS)
    name, _ = split(backend)
    if module_of(backend) == "onnxruntime":
        return _PROVIDERS[name] in require("onnxruntime").get_available_providers()
    return name != "openvino" and bool(require("torch").cuda.is_available())


# CPU


def cpu_kind(model: str, cores: int) -> str:
    """Kind of a CPU device: `amd-epyc-9r14-2-cores`, a plain file name."""
    return f"{slug(model)}-{cores}-{'core' if cores == 1 else 'cores'}"


def partition_kind(kind: str, parts: int) -> str | None:
    """Kind of an equal part of a CPU of `kind`: half of `x-4-cores` is `x-2-cores`; None when it cannot be cut so."""
    match = re.fullmatch(r"(.+)-(\d+)-cores?", kind)
    if match is None or int(match[2]) % parts:
        return None
    return cpu_kind(match[1], int(match[2]) // parts)


def cpu_partitions(devices: Sequence[Device], lanes: int = 4) -> tuple[Device, ...]:
    """One device for each kind of part that the CPUs among `devices` can be cut in, up to `lanes` parts each.

    Members measured on these let the plan tell a CPU cut in lanes from a whole one.
    """
    found: dict[str, Device] = {}
    for device in devices:
        for count in range(2, min(lanes, len(device.cores)) + 1):
            kind = partition_kind(device.kind, count)
            if device.type == "cpu" and kind is not None and len(device.cores) % count == 0:
                cores = device.cores[: len(device.cores) // count]
                found.setdefault(kind, Device(device.name, kind, device.memory // count, cores))
    return tuple(found.values())


def slug(text: str) -> str:
    """`AMD EPYC 9R14 @ 2.6GHz` as `amd-epyc-9r14`: lower case, without clock speed, trade marks and filler."""
    text = re.sub(r"\((r|tm|c)\)|@.*|\b(cpu|processor|\d+-core)\b", " ", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "cpu"


def _cpus(parts: int) -> tuple[Device, ...]:
    """All cores this process may use, cut in `parts` equal devices; cores left over are not used."""
    cores = usable_cores()
    if not 1 <= parts <= len(cores):
        few = "cpu" if len(cores) == 1 else f"cpu:2 to cpu:{len(cores)}, or cpu"
        raise AllocationError(f"cannot cut {len(cores)} cores in {parts} devices: use {few}")
    each = len(cores) // parts
    kind = cpu_kind(_cpu_model(), each)
    memory = free_memory() // parts
    return tuple(Device(f"cpu:{i}", kind, memory, cores[i * each : (i + 1) * each]) for i in range(parts))


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the kernel gives it; the architecture where it gives none."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "cpu") and value.strip():
                return value.strip()
    return os.uname().machine


# GPUs


def gpus() -> tuple[Device, ...]:
    """Every NVIDIA GPU this process may use, numbered as CUDA numbers them (`CUDA_VISIBLE_DEVICES` is heeded)."""
    text, visible = _nvidia_smi(), os.environ.get("CUDA_VISIBLE_DEVICES")
    # of the parts that a GPU can be cut in, `MIG-...`, nvidia-smi's table says nothing
    if text is None or "MIG-" in (visible or ""):
        driver = text is not None or Path("/proc/driver/nvidia/gpus").is_dir()
        return _gpus_by_torch() if driver else ()
    rows = _visible(text, visible)
    return tuple(Device(f"cuda:{i}", slug(row[2]), int(row[4]) << 20) for i, row in enumerate(rows))


def used_gpu_memory(device: str) -> int:
    """Bytes taken on `device` (`cuda:1`) by everybody. Raises EngineError where nobody can say: 0 would be a lie."""
    rows = _visible(_nvidia_smi() or "", os.environ.get("CUDA_VISIBLE_DEVICES"))
    number = int(device.partition(":")[2])
    if number < len(rows):
        return int(rows[number][3]) << 20
    cuda = _torch_cuda()
    if cuda is not None and number < cuda.device_count():
        free, total = cuda.mem_get_info(number)
        return int(total - free)
    raise EngineError(
        f"what is taken of the memory of {device} cannot be told: nvidia-smi does not list it, and there is no PyTorch "
        "with CUDA to ask: install one of them"
    )


def _nvidia_smi() -> str | None:
    """One line per GPU: index, uuid, name, MiB used, MiB free; None where there is no such command."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _visible(text: str, visible: str | None) -> list[list[str]]:
    """Rows of `nvidia-smi` in the order of `CUDA_VISIBLE_DEVICES`, which stops at the first it does not know."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") == 4]
    rows = [row for row in rows if row[3].isdecimal() and row[4].isdecimal()]
    if visible is None:
        return rows
    chosen: list[list[str]] = []
    for wanted in filter(None, visible.split(",")):
        match = [row for row in rows if wanted.strip() == row[0] or row[1].startswith(wanted.strip())]
        if not match:
            break
        chosen.append(match[0])
    return chosen


def _gpus_by_torch() -> tuple[Device, ...]:
    cuda = _torch_cuda()
    count = range(0 if cuda is None else cuda.device_count())
    return tuple(Device(f"cuda:{i}", slug(cuda.get_device_name(i)), cuda.mem_get_info(i)[0]) for i in count)


def _torch_cuda() -> Any:
    """What PyTorch knows of GPUs; None where it is not installed."""
    try:
        return require("torch").cuda
    except (ImportError, MissingExtraError):
        return None
