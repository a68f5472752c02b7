"""How a bundle's allocation becomes lanes: who sits where, with how many threads, on which cores; the ring's size.

Thread pools are explicit, always: default ones, of several lanes on the same cores, cost 2 to 40 times the throughput.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from ripieno.engine.memory_limit import mib, resident
from ripieno.engine.model_runner import ModelSpec, WorkerConfig, stamp_of
from ripieno.engine.ring_types import InstanceConfig
from ripieno.errors import EngineError
from ripieno.library.bundle import backend_of, model_path
from ripieno.resources import free_memory, usable_cores
from ripieno.types import Bundle, Device, Placement

RING_BYTES = 32 << 20
"""Most bytes of samples and predictions in a ring whose capacity is not given, unless four batches take more."""
RING_SAMPLES = 1024
"""Most samples in a ring whose capacity is not given."""
FLOOR = 8
"""Fewest samples a task of a processor lane is cut to: smaller batches cost more than 3 % there. On a GPU it is not
cut at all."""


def workers_of(bundle: Bundle) -> list[list[Placement]]:
    """Placements by (device, lane). Raises EngineError when members, placements and devices do not match."""
    groups: dict[tuple[str, int], list[Placement]] = {}
    for placement in bundle.allocation.placements:
        if placement.member not in bundle.ensemble.members:
            raise EngineError(f"the allocation places {placement.member}, which is no member: allocate again")
        if placement.batch_size < 1:
            raise EngineError(f"{placement.member} has batch size {placement.batch_size}, must be at least 1")
        group = groups.setdefault((placement.device, placement.lane), [])
        if all(placement.member != other.member for other in group):  # twice in one lane is once
            group.append(placement)
    placed = {p.member for p in bundle.allocation.placements}
    if missing := [m for m in bundle.ensemble.members if m not in placed]:
        raise EngineError(f"member {missing[0]} has no place in the allocation: allocate again")
    return [groups[key] for key in sorted(groups)]


def instance_config(bundle: Bundle, placement: Placement) -> InstanceConfig:
    """A placement as the ring sees it."""
    member = bundle.ensemble.members.index(placement.member)
    small = placement.device.startswith("cpu")
    return InstanceConfig(member, placement.batch_size, FLOOR if small else placement.batch_size)


def worker_config(
    bundle: Bundle, lane: Sequence[Placement], lanes: Sequence[Sequence[Placement]], trusted: Sequence[str] = ()
) -> WorkerConfig:
    """A lane's members, and its share of its device: the cores divided by the lanes on it."""
    device = _here(bundle, _device(bundle, lane[0].device))
    beside = [other[0].lane for other in lanes if other[0].device == device.name]
    place = beside.index(lane[0].lane)
    number = len(device.cores or usable_cores()) if device.type == "cpu" else 1
    threads = max(1, number // len(beside))
    wheel = device.cores * (threads * len(beside))
    members = {member.id: member for member in bundle.members}
    seats = tuple(
        ModelSpec(
            bundle.ensemble.members.index(p.member),
            members[p.member],
            model_path(bundle, p.member, p.device),
            backend_of(bundle, p.member, p.device),
            p.batch_size,
            stamp_of(model_path(bundle, p.member, p.device)),
        )
        for p in lane
    )
    cores = wheel[place * threads : (place + 1) * threads]
    cap = memory_limit_of(bundle, device, lane[0].lane)
    if cap and device.type == "cuda":  # backends take what is free of a GPU unless told otherwise
        device = dataclasses.replace(device, memory=cap)
    return WorkerConfig(bundle.backend, device, threads, cores, seats, tuple(trusted), cap)


def memory_limit_of(bundle: Bundle, device: Device, lane: int) -> int:
    """Most bytes a lane may take: its plan and its part of what its device has left over; 0 without a plan.

    Raises EngineError when more is planned for the device than it has.
    """
    names = {f"{p.device}/{p.lane}" for p in bundle.allocation.placements if p.device == device.name}
    plans = {name: size for name, size in bundle.allocation.planned.items() if name in names}
    if len(plans) < len(names):
        return 0
    left = device.memory - sum(plans.values())
    if left < 0:
        raise EngineError(
            f"{mib(device.memory - left)} are planned on {device.name}, which has {mib(device.memory)}: allocate again"
        )
    return plans[f"{device.name}/{lane}"] + left // len(plans)


def check_free_memory(bundle: Bundle, isolation: str) -> None:
    """Refuse, before anything is loaded, what this machine's memory cannot hold now. Raises EngineError."""
    planned = sum(size for name, size in bundle.allocation.planned.items() if name.startswith("cpu"))
    if not planned:
        return
    needs = planned - (resident() if isolation == "thread" else 0)  # a thread's runtime may be here already
    free = free_memory()
    if needs > free:
        raise EngineError(
            f"the members are planned to take {mib(planned)} of this machine's memory, {mib(free)} are free: "
            "end other programs, or allocate again"
        )


def isolation_of(bundle: Bundle, lanes: int) -> Literal["thread", "process"]:
    """What `auto` means: threads, unless eager PyTorch would fight over Python's lock in several of them."""
    processor = all(p.device.startswith("cpu") for p in bundle.allocation.placements)
    used = {backend_of(bundle, p.member, p.device).partition(":")[0] for p in bundle.allocation.placements}
    return "process" if used & {"torch", "torch-compile"} and processor and lanes > 1 else "thread"


def capacity_of(bundle: Bundle, largest: int) -> int:
    """Samples in the ring: whole batches of the `largest` size."""
    row = int(np.prod(bundle.input.shape)) * np.dtype(bundle.input.dtype).itemsize
    row += 4 * len(bundle.ensemble.members) * len(bundle.classes)
    return max(min(RING_SAMPLES, RING_BYTES // row) // largest * largest, 4 * largest)


def map_cores(device: Device, devices: Sequence[Device], allowed: Collection[int]) -> tuple[int, ...]:
    """Cores of `device`, one of the planned `devices`, among those that are `allowed` here.

    They are the planned ones where all of these may be used. Else the bundle has come to another machine or container:
    the devices share out what is there, in the planned order, each its part.
    """
    planned = sorted({core for one in devices for core in one.cores})
    there = sorted(allowed)
    if set(planned) <= set(there):
        return device.cores
    most = min(len(planned), len(there))
    return tuple(dict.fromkeys(there[planned.index(core) * most // len(planned)] for core in device.cores))


def _here(bundle: Bundle, device: Device) -> Device:
    """`device` with the cores it has on this machine."""
    if device.type != "cpu":
        return device
    cores = map_cores(device, bundle.allocation.devices, os.sched_getaffinity(0))
    return dataclasses.replace(device, cores=cores)


def _device(bundle: Bundle, name: str) -> Device:
    for device in bundle.allocation.devices:
        if device.name == name:
            return device
    known = ", ".join(device.name for device in bundle.allocation.devices)
    raise EngineError(f"the allocation uses {name}, which is none of its devices ({known}): allocate again")
