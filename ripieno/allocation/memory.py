"""Bytes that placements take on each device, and whether they fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ripieno.allocation.costs import ProfileCosts
from ripieno.errors import AllocationError
from ripieno.types import Device, Placement


def device_usage(placements: Sequence[Placement], devices: Sequence[Device], costs: ProfileCosts) -> dict[str, int]:
    """Bytes taken on each device: every lane's own share, and every placement at its batch size.

    Raises AllocationError for a placement on a device that is not among `devices`.
    """
    by_name = {device.name: device for device in devices}
    taken = dict.fromkeys(by_name, 0)
    for name, _ in {(p.device, p.lane) for p in placements}:
        taken[name] = taken.get(name, 0) + costs.base(_found(by_name, name))
    for placement in placements:
        device = _found(by_name, placement.device)
        taken[device.name] += costs.bytes(placement.member, device, placement.batch_size)
    return taken


def worker_usage(placements: Sequence[Placement], devices: Sequence[Device], costs: ProfileCosts) -> dict[str, int]:
    """Bytes that each lane takes, by `DEVICE/LANE`: its own share, and its placements at their batch sizes.

    Raises AllocationError for a placement on a device that is not among `devices`.
    """
    by_name = {device.name: device for device in devices}
    taken: dict[str, int] = {}
    for p in placements:
        device = _found(by_name, p.device)
        key = f"{p.device}/{p.lane}"
        taken[key] = taken.get(key, costs.base(device)) + costs.bytes(p.member, device, p.batch_size)
    return taken


def fits(placements: Sequence[Placement], devices: Sequence[Device], costs: ProfileCosts) -> bool:
    """Whether no device is asked for more bytes than it has."""
    taken = device_usage(placements, devices, costs)
    return all(taken[device.name] <= device.memory for device in devices)


def format_rounded_up(count: int) -> str:
    """As `in_words`, but never rounded down: who gives so much gives enough."""
    unit = 1 << max(0, min(30, 10 * ((count.bit_length() - 1) // 10)))
    return format_bytes(unit * math.ceil(10 * count / unit) / 10)


def format_bytes(count: float) -> str:
    """`3221225472` as `3.0 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _found(by_name: dict[str, Device], name: str) -> Device:
    if name not in by_name:
        raise AllocationError(f"no device {name!r}; there are: {', '.join(by_name) or 'none'}")
    return by_name[name]
