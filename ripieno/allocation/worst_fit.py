"""Worst-fit decreasing by memory: the initial allocation (section 2.4).

"We give a priority on the GPU because we make the assumption it is faster. If it is not possible, it allocates on the
CPU because more memory is present."
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.memory import format_bytes, format_rounded_up
from ripieno.allocation.problem import FREE, PlacementConstraint
from ripieno.errors import AllocationError
from ripieno.types import Device, Placement

DEFAULT_BATCH_SIZE = 8
"""Batch size of every member before the refinement."""


def worst_fit(
    members: Sequence[str],
    devices: Sequence[Device],
    costs: ProfileCosts,
    batch_size: int = DEFAULT_BATCH_SIZE,
    smaller: Sequence[int] = (),
    pins: Mapping[str, PlacementConstraint] | None = None,
) -> tuple[Placement, ...]:
    """Place each member, largest first, on the GPU with the most free memory, or on a CPU if it fits on no GPU.

    All have `batch_size` and share one worker per device; `pins` fix a member's device or batch size. `smaller` batch
    sizes are used in the error message only.

    Raises AllocationError if a member fits nowhere; the message names the smallest change that makes all fit.
    """
    if not devices:
        raise AllocationError("no devices are given: pass at least cpu")
    place = functools.partial(_place, members, costs=costs, pins=pins or {})
    placed = place(devices, batch_size)
    if isinstance(placed, str):
        raise AllocationError(_error_text(placed, place, devices, costs, batch_size, smaller))
    return placed


Place = Callable[[Sequence[Device], int], "tuple[Placement, ...] | str"]


def _place(
    members: Sequence[str],
    devices: Sequence[Device],
    batch_size: int,
    costs: ProfileCosts,
    pins: Mapping[str, PlacementConstraint],
) -> tuple[Placement, ...] | str:
    """Return placements in the order of `members`, or the member that fits nowhere."""
    left = {device.name: device.memory for device in devices}
    chosen: dict[str, str] = {}
    size = {m: pins.get(m, FREE).batch_size or batch_size for m in members}
    for member in sorted(members, key=lambda m: -max(costs.bytes(m, d, size[m]) for d in devices)):
        # the first member of a device also takes the worker's base memory
        base = {d.name: 0 if d.name in chosen.values() else costs.base(d) for d in devices}
        needs = {d.name: costs.bytes(member, d, size[member]) + base[d.name] for d in devices}
        allowed = [d for d in devices if pins.get(member, FREE).allows(d.name, size[member])]
        fitting = [d for d in allowed if needs[d.name] <= left[d.name]]
        # GPUs first, CPUs for the rest; then most free memory, then the given order
        best = max(fitting, key=lambda d: (d.type != "cpu", left[d.name]), default=None)
        if best is None:
            return member
        chosen[member] = best.name
        left[best.name] -= needs[best.name]
    return tuple(Placement(member, chosen[member], size[member]) for member in members)


def _error_text(
    member: str, place: Place, devices: Sequence[Device], costs: ProfileCosts, batch_size: int, smaller: Sequence[int]
) -> str:
    """Describe what does not fit, and the smallest changes that make all fit; each change is verified."""
    changes = []
    for size in sorted((s for s in smaller if s < batch_size), reverse=True):
        if not isinstance(place(devices, size), str):
            changes.append(f"use batch size {size}")
            break
    changes += suggest_memory({d: _extra(d, place, devices, batch_size) for d in devices})
    changes.append("leave members out")
    needs = min(costs.bytes(member, d, batch_size) for d in devices)
    return (
        f"the members do not fit in the memory of {', '.join(d.name for d in devices)}: {member} needs "
        f"{format_bytes(needs)} in batches of {batch_size}: {', or '.join(changes)}"
    )


def _extra(device: Device, place: Place, devices: Sequence[Device], batch_size: int) -> int | None:
    """Return the fewest extra bytes on `device` that suffice, within a thousandth; None if no amount does."""

    def enough(extra: int) -> bool:
        grown = [dataclasses.replace(d, memory=d.memory + extra) if d is device else d for d in devices]
        return not isinstance(place(grown, batch_size), str)

    # no amount suffices for a member that is pinned to another device
    return smallest_sufficient(enough, 1 << 20, 1 << 50, 1000)


def smallest_sufficient(enough: Callable[[int], bool], start: int, most: int, parts: int | None = None) -> int | None:
    """Return the smallest number that is `enough`, exactly or to one of its `parts`; None if it is above `most`."""
    low, high = 0, start
    while not enough(high):
        low, high = high, 2 * high
        if high > most:
            return None
    while high - low > max(1, high // parts if parts else 1):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def suggest_memory(extras: Mapping[Device, int | None]) -> list[str]:
    """Suggest the fewest of the extra bytes by device; empty if none suffice."""
    known = {d: extra for d, extra in extras.items() if extra is not None}
    if not known:
        return []
    device = min(known, key=lambda d: known[d])
    return [f"give {device.name} {format_rounded_up(known[device])} more memory than its {format_bytes(device.memory)}"]
