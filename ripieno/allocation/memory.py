"""Memory use of placements on devices."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ripieno.allocation.costs import ProfileCosts
from ripieno.errors import AllocationError
from ripieno.types import Device, Placement


def device_usage(placements: Sequence[Placement], devices: Sequence[Device], costs: ProfileCosts) -> dict[str, int]:
    """Return the bytes used on each device by all its workers; see `worker_usage`."""
    used = {device.name: 0 for device in devices}
    for (name, _), size in _usage(placements, devices, costs).items():
        used[name] += size
    return used


def worker_usage(placements: Sequence[Placement], devices: Sequence[Device], costs: ProfileCosts) -> dict[str, int]:
    """Return the bytes used by each worker, by `DEVICE/LANE`: its base memory plus its placements at their batch sizes.

    Raises AllocationError for a placement on a device that is not among `devices`.
    """
    return {f"{name}/{lane}": size for (name, lane), size in _usage(placements, devices, costs).items()}


def _usage(
    placements: Sequence[Placement], devices: Sequence[Device], costs: ProfileCosts
) -> dict[tuple[str, int], int]:
    by_name = {device.name: device for device in devices}
    used: dict[tuple[str, int], int] = {}
    for p in placements:
        device = by_name.get(p.device)
        if device is None:
            raise AllocationError(f"unknown device {p.device!r}: expected one of {', '.join(by_name) or 'none'}")
        key = (p.device, p.lane)
        if key not in used:
            used[key] = costs.base(device)
        used[key] += costs.bytes(p.member, device, p.batch_size)
    return used


def fits(placements: Sequence[Placement], devices: Sequence[Device], costs: ProfileCosts) -> bool:
    """Return whether the placements fit into the memory of every device."""
    used = device_usage(placements, devices, costs)
    return all(used[device.name] <= device.memory for device in devices)


def format_rounded_up(count: int) -> str:
    """Format as `format_bytes`, but round up, so that this amount is enough."""
    unit = 1 << max(0, min(30, 10 * ((count.bit_length() - 1) // 10)))
    return format_bytes(unit * math.ceil(10 * count / unit) / 10)


def format_bytes(count: float) -> str:
    """Format bytes: `3221225472` as `3.0 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
