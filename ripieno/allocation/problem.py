"""Allocation problem: members, devices, costs, batch sizes and pins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ripieno.allocation import memory
from ripieno.allocation.costs import ProfileCosts
from ripieno.errors import AllocationError
from ripieno.types import Device, Placement
from ripieno.types import Placements as Placements

Resource = tuple[str, int]
"""A device and, on a CPU, its worker; 0 on a GPU."""


@dataclass(frozen=True)
class PlacementConstraint:
    """Pin of a member to a device, a batch size, or both. A member pinned to a device has no replicas elsewhere."""

    device: str | None = None
    batch_size: int | None = None

    def allows(self, device: str, batch_size: int) -> bool:
        """Return whether a placement on `device` in batches of `batch_size` satisfies the pin."""
        return self.device in (None, device) and self.batch_size in (None, batch_size)


FREE = PlacementConstraint()


@dataclass(frozen=True)
class AllocationProblem:
    """Input of the allocation: at most `lanes` workers per device; `replicas` allows several placements of a member."""

    members: Sequence[str]
    devices: Sequence[Device]
    costs: ProfileCosts
    batch_sizes: Sequence[int]
    pins: Mapping[str, PlacementConstraint] = field(default_factory=dict)
    replicas: bool = True
    lanes: int = 1

    @cached_property
    def settled(self) -> dict[tuple[object, ...], tuple[int, ...]]:
        """Cache of `hill_climbing.with_best_batch_sizes`: batch sizes by device and its placements."""
        return {}

    @cached_property
    def by_name(self) -> dict[str, Device]:
        """Devices by name."""
        return {device.name: device for device in self.devices}

    def sizes(self, member: str) -> Sequence[int]:
        """Return the batch sizes allowed for `member`."""
        size = self.pins.get(member, FREE).batch_size
        return self.batch_sizes if size is None else (size,)

    def allowed_devices(self, member: str) -> list[Device]:
        """Return the devices allowed for `member`."""
        return [d for d in self.devices if self.pins.get(member, FREE).device in (None, d.name)]

    def lane_counts(self, device: Device) -> list[int]:
        """Return the possible numbers of equal workers on `device`: divisors of its cores; one for a GPU."""
        cores = len(device.cores) if device.type == "cpu" else 1
        return [n for n in range(1, max(1, min(self.lanes, cores)) + 1) if n == 1 or cores % n == 0]

    def fastest(self, member: str, device: Device, lanes: int = 1) -> float:
        """Return the seconds per sample at the best batch size, on a device with `lanes` workers."""
        return min(self.costs.seconds(member, device, size, lanes) / size for size in self.sizes(member))

    def fits(self, placements: Placements) -> bool:
        """Return whether `placements` fit into the memory of every device."""
        return memory.fits(placements, self.devices, self.costs)

    def allows(self, placements: Placements) -> bool:
        """Return whether `placements` satisfy the pins, include every member and fit."""
        return (
            {p.member for p in placements} == set(self.members)
            and all(self.pins.get(p.member, FREE).allows(p.device, p.batch_size) for p in placements)
            and self.fits(placements)
        )


def check_pins(pins: Mapping[str, PlacementConstraint], members: Sequence[str], devices: Sequence[str]) -> None:
    """Raise AllocationError for a pin with an unknown member or device name."""
    for member, pin in pins.items():
        if member not in members:
            raise AllocationError(f"pinned member {member} is not in the ensemble: pass one of {', '.join(members)}")
        if pin.device is not None and pin.device not in devices:
            raise AllocationError(
                f"{member} is pinned to unknown device {pin.device}: expected one of {', '.join(devices)}"
            )


def parse_pins(texts: Iterable[str]) -> dict[str, PlacementConstraint]:
    """Parse `MEMBER=DEVICE`, `MEMBER=@BATCH` or `MEMBER=DEVICE@BATCH`. Raises AllocationError for any other text."""
    pins: dict[str, PlacementConstraint] = {}
    for text in texts:
        member, equals, rest = text.partition("=")
        device, at, batch = rest.partition("@")
        if not member or not equals or not rest or (at and not (batch.isdecimal() and int(batch) > 0)):
            raise AllocationError(f"cannot parse pin {text!r}: expected MEMBER=cuda:0, MEMBER=@32 or MEMBER=cuda:0@32")
        new = PlacementConstraint(device or None, int(batch) if at else None)
        old = pins.get(member, FREE)
        if (old.device and new.device) or (old.batch_size and new.batch_size):
            raise AllocationError(f"{member} is pinned twice: pin its device and its batch size at most once each")
        pins[member] = PlacementConstraint(old.device or new.device, old.batch_size or new.batch_size)
    return pins


def canonical(placements: Iterable[Placement]) -> Placements:
    """Sort placements and renumber the workers of each device from 0 without gaps."""
    placements = sorted(placements, key=lambda p: (p.device, p.lane, p.member, p.batch_size))
    numbers: dict[tuple[str, int], int] = {}
    for p in placements:
        numbers.setdefault((p.device, p.lane), sum(device == p.device for device, _ in numbers))
    return tuple(dataclasses.replace(p, lane=numbers[p.device, p.lane]) for p in placements)
