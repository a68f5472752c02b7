"""Configuration of workers from a bundle's allocation: members, threads, cores, memory limits; the size of the ring.

Thread pools are always explicit: default pools of several workers on the same cores divide the throughput by 2 to 40.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from ripieno.engine.memory_limit import mib, resident
from ripieno.engine.model_runner import ModelSpec, WorkerConfig, stamp_of
from ripieno.engine.ring import InstanceConfig
from ripieno.errors import EngineError
from ripieno.library.bundle import backend_of, model_path
from ripieno.resources import free_memory, usable_cores
from ripieno.types import Bundle, Device, Placement

RING_BYTES = 32 << 20
"""Most bytes of samples and predictions in a ring of default capacity, unless four batches take more."""
MOST_BYTES = 512 << 20
"""Most bytes of these four batches, unless one batch takes more: predictions of pixels are large."""
RING_SAMPLES = 1024
"""Most samples in a ring of default capacity."""
FLOOR = 8
"""Fewest samples to which a task of a CPU worker is cut: smaller batches cost more than 3 %. Tasks of a GPU worker are
not cut."""


def workers_of(bundle: Bundle) -> list[list[Placement]]:
    """Return placements by (device, lane). Raises EngineError when members, placements and devices do not match."""
    groups: dict[tuple[str, int], list[Placement]] = {}
    for placement in bundle.allocation.placements:
        if placement.member not in bundle.ensemble.members:
            raise EngineError(f"The allocation places {placement.member}, which is not a member. Allocate again.")
        if placement.batch_size < 1:
            raise EngineError(f"{placement.member} has batch size {placement.batch_size}, expected at least 1.")
        group = groups.setdefault((placement.device, placement.lane), [])
        if all(placement.member != other.member for other in group):  # a duplicate placement in one worker counts once
            group.append(placement)
    placed = {p.member for p in bundle.allocation.placements}
    if missing := [m for m in bundle.ensemble.members if m not in placed]:
        raise EngineError(f"Member {missing[0]} has no placement in the allocation. Allocate again.")
    return [groups[key] for key in sorted(groups)]


def units_of(bundle: Bundle) -> tuple[tuple[int, ...], ...]:
    """Return the units of an ensemble: the indices of the members of each, in the ensemble's order."""
    members = {member.id: member for member in bundle.members}
    units: dict[str, list[int]] = {}
    for index, name in enumerate(bundle.ensemble.members):
        units.setdefault(members[name].inference_unit, []).append(index)
    return tuple(tuple(indices) for indices in units.values())


def instance_configs(
    bundle: Bundle, group: Sequence[Placement], units: Sequence[Sequence[int]]
) -> list[InstanceConfig]:
    """Return the ring's configurations of the units in a worker.

    Raises EngineError when a member of a unit is absent from the worker, or has another batch size or backend.
    """
    placed = {bundle.ensemble.members.index(p.member): p for p in group}
    configs = []
    for unit, members in enumerate(units):
        first = next((placed[m] for m in members if m in placed), None)
        if first is None:
            continue
        for index in members:
            if index not in placed or _terms(bundle, placed[index]) != _terms(bundle, first):
                apart = bundle.ensemble.members[index]
                raise EngineError(
                    f"{first.member} and {apart} share a backbone, but differ in their placements on {first.device}: "
                    "expected equal workers, batch sizes and backends. Allocate again."
                )
        small = first.device.startswith("cpu")
        configs.append(InstanceConfig(unit, first.batch_size, FLOOR if small else first.batch_size))
    return configs


def _terms(bundle: Bundle, placement: Placement) -> tuple[int, str]:
    return placement.batch_size, backend_of(bundle, placement.member, placement.device)


def worker_config(bundle: Bundle, group: Sequence[Placement], groups: Sequence[Sequence[Placement]]) -> WorkerConfig:
    """Return the members of a worker and its share of its device: the cores divided by the workers on it."""
    device = _device(bundle, group[0].device)
    if device.type == "cpu":
        cores = map_cores(device, bundle.allocation.devices, os.sched_getaffinity(0))
        device = dataclasses.replace(device, cores=cores)
    lanes = [other[0].lane for other in groups if other[0].device == device.name]
    place = lanes.index(group[0].lane)
    number = len(device.cores or usable_cores()) if device.type == "cpu" else 1
    threads = max(1, number // len(lanes))
    repeated = device.cores * (threads * len(lanes))
    members = {member.id: member for member in bundle.members}
    temperatures = dict(zip(bundle.ensemble.members, bundle.ensemble.temperatures, strict=False))  # none: all are 1
    unit_of = {index: unit for unit, indices in enumerate(units_of(bundle)) for index in indices}
    specs = []
    for p in group:
        index, path = bundle.ensemble.members.index(p.member), model_path(bundle, p.member, p.device)
        specs.append(
            ModelSpec(
                index,
                unit_of[index],
                members[p.member],
                path,
                backend_of(bundle, p.member, p.device),
                p.batch_size,
                stamp_of(path, members[p.member]),
                temperatures.get(p.member, 1.0),
            )
        )
    cores = repeated[place * threads : (place + 1) * threads]
    limit = memory_limit_of(bundle, device, group[0].lane)
    if limit and device.type == "cuda":  # without a limit a backend takes all free memory of a GPU
        device = dataclasses.replace(device, memory=limit)
    return WorkerConfig(bundle.backend, device, threads, cores, tuple(specs), bundle.trusted, limit)


def memory_limit_of(bundle: Bundle, device: Device, lane: int) -> int:
    """Return the memory limit of a worker in bytes: its planned memory and its share of the rest of its device.

    Returns 0 without a plan. Raises EngineError when the plan for the device exceeds its memory.
    """
    names = {f"{p.device}/{p.lane}" for p in bundle.allocation.placements if p.device == device.name}
    plans = {name: size for name, size in bundle.allocation.planned.items() if name in names}
    if len(plans) < len(names):
        return 0
    left = device.memory - sum(plans.values())
    if left < 0:
        raise EngineError(
            f"The plan for {device.name} needs {mib(device.memory - left)}, but the device has {mib(device.memory)}. "
            "Allocate again."
        )
    return plans[f"{device.name}/{lane}"] + left // len(plans)


def check_free_memory(bundle: Bundle, isolation: str) -> None:
    """Raise EngineError, before anything is loaded, if the members exceed the free memory of this machine."""
    planned = sum(size for name, size in bundle.allocation.planned.items() if name.startswith("cpu"))
    if not planned:
        return
    needs = planned - (resident() if isolation == "thread" else 0)  # the runtime of a thread may be loaded already
    free = free_memory()
    if needs > free:
        raise EngineError(
            f"The members need {mib(planned)} of this machine's memory, but {mib(free)} are free. "
            "End other programs, or allocate again."
        )


def isolation_of(bundle: Bundle, workers: int) -> Literal["thread", "process"]:
    """Return the isolation for `auto`: threads, unless several PyTorch workers would compete for Python's lock."""
    processor = all(p.device.startswith("cpu") for p in bundle.allocation.placements)
    used = {backend_of(bundle, p.member, p.device).partition(":")[0] for p in bundle.allocation.placements}
    return "process" if used & {"torch", "torch-compile"} and processor and workers > 1 else "thread"


def capacity_of(bundle: Bundle, largest: int) -> int:
    """Return the capacity of the ring in samples: whole batches of the `largest` size."""
    row = int(np.prod(bundle.input.shape)) * np.dtype(bundle.input.dtype).itemsize
    row += 4 * len(bundle.ensemble.members) * math.prod(bundle.task.output)
    batches = min(4, max(1, MOST_BYTES // (row * largest)))
    return max(min(RING_SAMPLES, RING_BYTES // row) // largest, batches) * largest


def map_cores(device: Device, devices: Sequence[Device], allowed: Collection[int]) -> tuple[int, ...]:
    """Return the cores of `device`, one of the planned `devices`, among the `allowed` cores of this machine.

    They are the planned ones if all of these are allowed. Otherwise the bundle runs on another machine or container:
    the devices share the allowed cores in the planned order.
    """
    planned = sorted({core for one in devices for core in one.cores})
    usable = sorted(allowed)
    if set(planned) <= set(usable):
        return device.cores
    most = min(len(planned), len(usable))
    return tuple(dict.fromkeys(usable[planned.index(core) * most // len(planned)] for core in device.cores))


def _device(bundle: Bundle, name: str) -> Device:
    for device in bundle.allocation.devices:
        if device.name == name:
            return device
    known = ", ".join(device.name for device in bundle.allocation.devices)
    raise EngineError(f"The allocation uses {name}, which is not one of its devices ({known}). Allocate again.")
