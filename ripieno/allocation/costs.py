"""Costs of a member on a device: seconds and bytes at any batch size, read from profiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ripieno.errors import AllocationError
from ripieno.profiles.devices import partition_kind
from ripieno.types import BatchProfile, Device, Profile

ENGINE_OVERHEAD = 2e-5
"""Engine seconds of a worker per batch: a sixth of a small network's time at batch size 1, negligible at 64."""


@dataclass(frozen=True)
class ProfileCosts:
    """Profiles by kind of device, then by member: `{d.kind: library.profiles(d.kind) for d in devices}`."""

    profiles: Mapping[str, Mapping[str, Profile]]
    overhead: float = 0.0
    """seconds that the engine adds to each batch"""
    _known: dict[tuple[str, str, int, int], float] = field(default_factory=dict, compare=False, repr=False)
    """cache by member, kind, batch size and number of workers, since searches repeat queries"""

    def profile(self, member: str, kind: str) -> Profile:
        """Return the profile of `member` on `kind`. Raises AllocationError if it was not measured."""
        try:
            return self.profiles[kind][member]
        except KeyError:
            message = f"{member} has no profile on {kind}: run `ripieno measure RUN` on such a device"
            raise AllocationError(message) from None

    def seconds(self, member: str, device: Device, batch_size: int, lanes: int = 1) -> float:
        """Return the seconds of one batch on a device with `lanes` workers.

        The workers of a GPU take turns on the whole device. Each worker of a CPU has an equal part of the cores: the
        profile of such a part is used if there is one; otherwise time is assumed inversely proportional to cores.
        """
        key = (member, device.kind, batch_size, lanes)
        if key not in self._known:
            part = self._part(member, device, lanes)
            slower = 1 if part is not None or device.type != "cpu" else lanes
            profile = part or self.profile(member, device.kind)
            # scale the engine's overhead too, or an unmeasured partition would look faster than the whole device
            self._known[key] = (seconds_at(profile.points, batch_size) + self.overhead) * slower
        return self._known[key]

    def measured(self, member: str, device: Device, lanes: int) -> bool:
        """Return whether `member` was measured on one of `lanes` equal parts of `device`."""
        return self._part(member, device, lanes) is not None or lanes == 1

    def _part(self, member: str, device: Device, lanes: int) -> Profile | None:
        kind = partition_kind(device.kind, lanes) if lanes > 1 and device.type == "cpu" else None
        return self.profiles.get(kind, {}).get(member) if kind else None

    def bytes(self, member: str, device: Device, batch_size: int) -> int:
        """Return the bytes of `member` on `device` in batches of `batch_size`, without the worker's base memory."""
        key = (member, device.kind, batch_size, 0)
        if key not in self._known:
            self._known[key] = bytes_at(self.profile(member, device.kind).points, batch_size)
        return int(self._known[key])

    def base(self, device: Device) -> int:
        """Return the bytes of a worker of `device` without members: the sum over the runtimes of all members."""
        most: dict[str, int] = {}
        for profile in self.profiles.get(device.kind, {}).values():
            runtime = profile.backend.partition(":")[0].partition("-")[0]
            most[runtime] = max(most.get(runtime, 0), profile.base)
        return sum(most.values())

    def batch_sizes(self, members: Iterable[str], devices: Sequence[Device]) -> tuple[int, ...]:
        """Return the batch sizes at which all `members` were measured on all `devices`, ascending."""
        measured = [
            {point.batch_size for point in self.profile(member, kind).points}
            for member in members
            for kind in {device.kind for device in devices}
        ]
        return tuple(sorted(set.intersection(*measured))) if measured else ()


def seconds_at(points: Sequence[BatchProfile], batch_size: int) -> float:
    """Return the seconds of a batch: measured, interpolated linearly, or proportional beyond the largest."""
    points = sorted(points, key=lambda p: p.batch_size)
    if batch_size >= points[-1].batch_size:
        return points[-1].seconds * batch_size / points[-1].batch_size
    return float(np.interp(batch_size, [p.batch_size for p in points], [p.seconds for p in points]))


def bytes_at(points: Sequence[BatchProfile], batch_size: int) -> int:
    """Return the bytes at a batch size, never too few: beyond the last point, use the steepest slope per sample."""
    points = sorted(points, key=lambda p: p.batch_size)
    last = points[-1]
    if batch_size <= last.batch_size:
        return round(float(np.interp(batch_size, [p.batch_size for p in points], [p.bytes for p in points])))
    rises = [(b.bytes - a.bytes) / (b.batch_size - a.batch_size) for a, b in itertools.pairwise(points)]
    slope = max(rises, default=last.bytes / last.batch_size)
    return round(last.bytes + max(0.0, slope) * (batch_size - last.batch_size))
