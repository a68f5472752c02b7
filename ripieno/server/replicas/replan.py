"""Adaptation of a bundle's allocation to the devices of a node."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ripieno.backends.backend_id import file_of
from ripieno.backends.batch_limit import limit_batch
from ripieno.backends.network_part import parts_of
from ripieno.cluster.nodes import offered
from ripieno.library.bundle import backend_of
from ripieno.types import Allocation, Bundle, Device, Profile

BATCH_SIZES = (1, 8, 32)
SECONDS = 2.0
"""Longest measurement of a member on a kind of device."""


def node_devices(resources: Mapping[str, float], devices: Sequence[Device]) -> tuple[Device, ...]:
    """Return this node's devices as its engine names them: `devices`, limited to the `resources` offered to Ray.

    Raises AllocationError as `ripieno.cluster.nodes.offered`.
    """
    cores = next((d.cores for d in devices if d.type == "cpu"), ())
    number: Counter[str] = Counter()
    found = []
    for device in offered("here", resources, devices):
        name = f"{device.type}:{number[device.type]}"
        number[device.type] += 1
        found.append(dataclasses.replace(device, name=name, cores=cores[: len(device.cores)]))
    return tuple(found)


def adapt_allocation(bundle: Bundle, devices: Sequence[Device]) -> Bundle:
    """Return `bundle` with an allocation for `devices`: its own if it was made for similar devices, else a new plan.

    A new plan is based on short measurements of each member on these devices. Raises AllocationError when the members
    do not fit.
    """
    names = _same(bundle.allocation, devices)
    if names is not None:
        return _renamed(bundle, devices, names)
    from ripieno.allocation import AllocationOptions, plan
    from ripieno.profiles import cpu_partitions

    options = AllocationOptions(max_benches=0)
    kinds = {device.kind: device for device in (*devices, *cpu_partitions(devices, options.lanes))}
    profiles = {kind: _measured(bundle, device) for kind, device in kinds.items()}
    backbones = {m.id: m.backbone for m in bundle.members}
    name = bundle.allocation.name
    allocation = plan(bundle.ensemble, devices, profiles, options=options, name=name, backbones=backbones)
    chosen = {m.id: {d.name: _backend(bundle, m.id, d) for d in devices} for m in bundle.members}
    return dataclasses.replace(bundle, allocation=allocation, chosen=chosen)


def _same(allocation: Allocation, devices: Sequence[Device]) -> dict[str, str] | None:
    """Map the names of the allocation's devices to `devices`; None unless the kinds and numbers are equal."""
    free = list(devices)
    names = {}
    for planned in allocation.devices:
        # memory is what was free at the time; the plan must still fit, within a tenth
        match = next((d for d in free if d.kind == planned.kind and d.memory >= 0.9 * planned.memory), None)
        if match is None:
            return None
        free.remove(match)
        names[planned.name] = match.name
    return None if free else names


def _renamed(bundle: Bundle, devices: Sequence[Device], names: Mapping[str, str]) -> Bundle:
    old = bundle.allocation
    placements = tuple(dataclasses.replace(p, device=names[p.device]) for p in old.placements)
    planned = {}
    for worker, size in old.planned.items():
        device, _, number = worker.rpartition("/")
        planned[f"{names[device]}/{number}"] = size
    allocation = dataclasses.replace(old, devices=tuple(devices), placements=placements, planned=planned)
    chosen = {m: {names[d]: backend for d, backend in by.items() if d in names} for m, by in bundle.chosen.items()}
    return dataclasses.replace(bundle, allocation=allocation, chosen=chosen)


def _backend(bundle: Bundle, member: str, device: Device) -> str:
    """Return the backend of `member` on a device of this type in the bundle, else on any device."""
    places = [p.device for p in bundle.allocation.placements if p.member == member]
    same_type = [name for name in places if name.partition(":")[0] == device.type] or places
    return backend_of(bundle, member, same_type[0])


def _measured(bundle: Bundle, device: Device) -> dict[str, Profile]:
    """Return profiles of the members and their shared backbones on `device`, by name."""
    from ripieno.profiles import profile

    sizes = sorted({limit_batch(size, bundle.task.output) for size in BATCH_SIZES})
    options: dict[str, Any] = {"batch_sizes": sizes, "window": 0.05, "max_seconds": SECONDS}
    profiles: dict[str, Profile] = {}
    for member in bundle.members:
        backend = _backend(bundle, member.id, device)
        path = bundle.path / "members" / member.id / file_of(backend)
        for name, part in parts_of(member).items():
            if name not in profiles:
                profiles[name] = profile(path, member, device, backend, trusted=bundle.trusted, part=part, **options)
    return profiles
