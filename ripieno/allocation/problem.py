"""What is to be placed and what is allowed: members, devices, costs, batch sizes, pins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ripieno.allocation import memory
from ripieno.allocation.costs import ProfileCosts
from ripieno.errors import AllocationError
from ripieno.types import Device, Placement

Placements = tuple[Placement, ...]


@dataclass(frozen=True)
class PlacementConstraint:
    """What the user fixes of a member: its device, its batch size, or both. A pinned device has no replicas beside."""

    device: str | None = None
    batch_size: int | None = None

    def allows(self, device: str, batch_size: int) -> bool:
        """Whether a placement on `device` in batches of `batch_size` obeys."""
        return self.device in (None, device) and self.batch_size in (None, batch_size)


FREE = PlacementConstraint()


@dataclass(frozen=True)
class AllocationProblem:
    """An allocation to be made.

    `lanes` is the most lanes one device may have; `replicas` allows several placements of a member.
    """

    members: Sequence[str]
    devices: Sequence[Device]
    costs: ProfileCosts
    batch_sizes: Sequence[int]
    pins: Mapping[str, PlacementConstraint] = field(default_factory=dict)
    replicas: bool = True
    lanes: int = 1

    @cached_property
    def settled(self) -> dict[tuple[object, ...], tuple[int, ...]]:
        """Batch sizes found before for who sits on a device: see `climb.settled`, which asks the same again."""
        return {}

    @cached_property
    def by_name(self) -> dict[str, Device]:
        """Devices by name."""
        return {device.name: device for device in self.devices}

    def pin(self, member: str) -> PlacementConstraint:
        """What is fixed of `member`."""
        return self.pins.get(member, FREE)

    def sizes(self, member: str) -> Sequence[int]:
        """Batch sizes `member` may have."""
        size = self.pin(member).batch_size
        return self.batch_sizes if size is None else (size,)

    def allowed_devices(self, member: str) -> list[Device]:
        """Devices `member` may run on."""
        return [d for d in self.devices if self.pin(member).device in (None, d.name)]

    def lane_counts(self, device: Device) -> list[int]:
        """Numbers of equal lanes `device` may be cut in: divisors of its cores; GPUs are not cut by the model."""
        cores = len(device.cores) if device.type == "cpu" else 1
        return [n for n in range(1, max(1, min(self.lanes, cores)) + 1) if n == 1 or cores % n == 0]

    def fits(self, placements: Placements) -> bool:
        """Whether no device is over its memory."""
        return memory.fits(placements, self.devices, self.costs)

    def allows(self, placements: Placements) -> bool:
        """Whether `placements` obey the pins, place everybody and fit."""
        return (
            {p.member for p in placements} == set(self.members)
            and all(self.pin(p.member).allows(p.device, p.batch_size) for p in placements)
            and self.fits(placements)
        )

    def with_pins(self) -> AllocationProblem:
        """This problem, its pins checked. Raises AllocationError for an unknown member or device."""
        check_pins(self.pins, self.members, tuple(self.by_name))
        return self


def check_pins(pins: Mapping[str, PlacementConstraint], members: Sequence[str], devices: Sequence[str]) -> None:
    """Raise AllocationError for a pin of a member or to a device, both by name, that is not there."""
    for member, pin in pins.items():
        if member not in members:
            raise AllocationError(f"{member} is pinned but not in the ensemble; it has {', '.join(members)}")
        if pin.device is not None and pin.device not in devices:
            raise AllocationError(
                f"{member} is pinned to {pin.device}, which is not there: use one of {', '.join(devices)}"
            )


def parse_pins(texts: Iterable[str]) -> dict[str, PlacementConstraint]:
    """Pins from `MEMBER=DEVICE`, `MEMBER=@BATCH` or `MEMBER=DEVICE@BATCH`.

    Raises AllocationError for anything else, or two pins of a member that contradict each other.
    """
    pins: dict[str, PlacementConstraint] = {}
    for text in texts:
        member, equals, rest = text.partition("=")
        device, at, batch = rest.partition("@")
        if not member or not equals or not rest or (at and not (batch.isdecimal() and int(batch) > 0)):
            raise AllocationError(f"{text!r} is not a pin: write MEMBER=cuda:0, MEMBER=@32 or MEMBER=cuda:0@32")
        new = PlacementConstraint(device or None, int(batch) if at else None)
        old = pins.get(member, FREE)
        if (old.device and new.device) or (old.batch_size and new.batch_size):
            raise AllocationError(f"{member} is pinned twice: pin its device and its batch size once each")
        pins[member] = PlacementConstraint(old.device or new.device, old.batch_size or new.batch_size)
    return pins


def canonical(placements: Iterable[Placement]) -> Placements:
    """Placements in one order, the lanes of each device renumbered from 0 without gaps."""
    placements = sorted(placements, key=lambda p: (p.device, p.lane, p.member, p.batch_size))
    numbers: dict[tuple[str, int], int] = {}
    for p in placements:
        numbers.setdefault((p.device, p.lane), sum(device == p.device for device, _ in numbers))
    return tuple(dataclasses.replace(p, lane=numbers[p.device, p.lane]) for p in placements)
