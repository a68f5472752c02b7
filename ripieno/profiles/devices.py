"""Devices of this machine: every GPU, and the CPU, whole or divided into parts with equal cores.

Discovery imports nothing heavy: it queries `nvidia-smi`. It uses torch only if `nvidia-smi` is missing although a
driver exists, or if `CUDA_VISIBLE_DEVICES` names parts of a GPU (MIG). Memory is the currently free memory. Cores are
the usable ones within the limits of this process's control group.
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
    """Return the devices of this machine named by `spec`, with the free bytes of each.

    `spec` is `auto` (every GPU, then the CPU) or a list such as `cuda:0,cpu`. `cuda` is every GPU, `cuda:1` one GPU.
    `cpu` is all usable cores as one device `cpu:0`; `cpu:2` divides the same cores and memory into two equal devices
    `cpu:0` and `cpu:1`. With a `backend` (see `ripieno.backends.backend_id`, or `auto`), `auto` omits GPUs that it
    cannot use.

    Raises AllocationError if a part of `spec` is unknown, repeated or not on this machine.
    """
    parts = [part.strip() for part in spec.split(",")]
    if parts == ["auto"]:
        return (*(gpus() if _runs_on_gpus(backend) else ()), *_cpus(1))
    devices = [device for part in parts for device in _named(part, backend)]
    names = [device.name for device in devices]
    for name in names:
        if names.count(name) > 1:
            raise AllocationError(f"devices {spec!r} contain {name} more than once: name each device once")
    return tuple(devices)


def _named(part: str, backend: str | None) -> Sequence[Device]:
    kind, _, number = part.partition(":")
    if kind not in ("cpu", "cuda") or (":" in part and not number.isdecimal()):
        raise AllocationError(
            f"unknown device {part!r}: expected auto, cpu, cpu:2 (the CPU in two parts), cuda or cuda:0"
        )
    if kind == "cpu":
        return _cpus(int(number) if number else 1)
    found = gpus()
    chosen = [gpu for gpu in found if not number or gpu.name == f"cuda:{int(number)}"]
    if not chosen:
        known = ", ".join(gpu.name for gpu in found) or "none"
        raise AllocationError(f"device {part!r} is not on this machine (GPUs: {known}): use one of them, or cpu")
    if not _runs_on_gpus(backend):
        hint = "install a build of torch with CUDA" if "torch" in str(backend) else "pip install onnxruntime-gpu"
        raise AllocationError(f"the installed {backend} backend cannot run on {part!r}: {hint}, or use cpu")
    return chosen


def _runs_on_gpus(backend: str | None) -> bool:
    """Return whether the installed `backend` can use a GPU; True without a backend. Checked only if there is a GPU."""
    if backend is None or not gpus():
        return backend is None
    if backend == "auto":
        return any(importlib.util.find_spec(m) and _runs_on_gpus(b) for m, b in _ON_GPUS)
    name, _ = split(backend)
    if module_of(backend) == "onnxruntime":
        return _PROVIDERS[name] in require("onnxruntime").get_available_providers()
    return name != "openvino" and bool(require("torch").cuda.is_available())


def cpu_kind(model: str, cores: int) -> str:
    """Return the kind of a CPU device, such as `amd-epyc-9r14-2-cores`; a valid file name."""
    return f"{slug(model)}-{cores}-{'core' if cores == 1 else 'cores'}"


def partition_kind(kind: str, parts: int) -> str | None:
    """Return the kind of an equal part of a CPU: half of `x-4-cores` is `x-2-cores`; None if not divisible."""
    match = re.fullmatch(r"(.+)-(\d+)-cores?", kind)
    if match is None or int(match[2]) % parts:
        return None
    return cpu_kind(match[1], int(match[2]) // parts)


def cpu_partitions(devices: Sequence[Device], lanes: int = 4) -> tuple[Device, ...]:
    """Return one device per kind of equal part of the CPUs among `devices`, up to `lanes` parts each.

    With members measured on these, the planner can predict a CPU with several workers.
    """
    partitions: dict[str, Device] = {}
    for device in devices:
        for count in range(2, min(lanes, len(device.cores)) + 1):
            kind = partition_kind(device.kind, count)
            if device.type == "cpu" and kind is not None and len(device.cores) % count == 0:
                cores = device.cores[: len(device.cores) // count]
                partitions.setdefault(kind, Device(device.name, kind, device.memory // count, cores))
    return tuple(partitions.values())


def slug(text: str) -> str:
    """Convert `AMD EPYC 9R14 @ 2.6GHz` to `amd-epyc-9r14`: lower case, no clock speed, trade marks or filler words."""
    text = re.sub(r"\((r|tm|c)\)|@.*|\b(cpu|processor|\d+-core)\b", " ", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "cpu"


def _cpus(parts: int) -> tuple[Device, ...]:
    """Divide all usable cores into `parts` equal devices; remaining cores are not used."""
    cores = usable_cores()
    if not 1 <= parts <= len(cores):
        allowed = "cpu" if len(cores) == 1 else f"cpu:2 to cpu:{len(cores)}, or cpu"
        raise AllocationError(f"cannot divide {len(cores)} cores into {parts} devices: use {allowed}")
    each = len(cores) // parts
    kind = cpu_kind(_cpu_model(), each)
    memory = free_memory() // parts
    return tuple(Device(f"cpu:{i}", kind, memory, cores[i * each : (i + 1) * each]) for i in range(parts))


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name from the kernel; the architecture if there is none."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "cpu") and value.strip():
                return value.strip()
    return os.uname().machine


def gpus() -> tuple[Device, ...]:
    """Return every NVIDIA GPU visible to this process, in CUDA's numbering (respects `CUDA_VISIBLE_DEVICES`)."""
    text, visible = _nvidia_smi(), os.environ.get("CUDA_VISIBLE_DEVICES")
    # nvidia-smi's table does not list parts of a GPU, `MIG-...`
    if text is None or "MIG-" in (visible or ""):
        cuda: Any = _torch_cuda() if text is not None or Path("/proc/driver/nvidia/gpus").is_dir() else None
        count = range(0 if cuda is None else cuda.device_count())
        return tuple(Device(f"cuda:{i}", slug(cuda.get_device_name(i)), cuda.mem_get_info(i)[0]) for i in count)
    rows = _visible(text, visible)
    return tuple(Device(f"cuda:{i}", slug(row[2]), int(row[4]) << 20) for i, row in enumerate(rows))


def used_gpu_memory(device: str) -> int:
    """Return the bytes used on `device` (`cuda:1`) by all processes. Raises EngineError if unknown: never 0."""
    rows = _visible(_nvidia_smi() or "", os.environ.get("CUDA_VISIBLE_DEVICES"))
    number = int(device.partition(":")[2])
    if number < len(rows):
        return int(rows[number][3]) << 20
    cuda = _torch_cuda()
    if cuda is not None and number < cuda.device_count():
        free, total = cuda.mem_get_info(number)
        return int(total - free)
    raise EngineError(
        f"cannot read the memory use of {device}: nvidia-smi does not list it, and PyTorch with CUDA is not installed: "
        "install one of them"
    )


def gpu_uuid(device: str) -> str:
    """Return the UUID of the GPU `device` (`cuda:1`). Raises EngineError if nvidia-smi does not list it."""
    rows = _visible(_nvidia_smi() or "", os.environ.get("CUDA_VISIBLE_DEVICES"))
    number = int(device.partition(":")[2])
    if number >= len(rows):
        raise EngineError(f"nvidia-smi does not list {device}")
    return rows[number][1]


def _nvidia_smi() -> str | None:
    """Return one line per GPU: index, uuid, name, MiB used, MiB free; None if the command fails."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _visible(text: str, visible: str | None) -> list[list[str]]:
    """Return rows of `nvidia-smi` in the order of `CUDA_VISIBLE_DEVICES`, up to the first unknown entry."""
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


def _torch_cuda() -> Any:
    """Return `torch.cuda`; None if PyTorch is not installed."""
    try:
        return require("torch").cuda
    except (ImportError, MissingExtraError):
        return None
