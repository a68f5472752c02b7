"""What a member takes on a device: seconds and bytes at any batch size, read from profiles."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ripieno.errors import AllocationError
from ripieno.profiles.devices import partition_kind
from ripieno.types import BatchProfile, Device, Profile

ENGINE_OVERHEAD = 2e-5
"""Seconds of a lane that the engine takes for each batch: a sixth of a small network on one sample, nothing on 64."""


@dataclass(frozen=True)
class ProfileCosts:
    """Profiles by kind of device, then by member: `{d.kind: library.profiles(d.kind) for d in devices}`."""

    profiles: Mapping[str, Mapping[str, Profile]]
    overhead: float = 0.0
    """seconds that whoever runs the batches adds to each"""
    _known: dict[tuple[str, str, int, int], float] = field(default_factory=dict, compare=False, repr=False)
    """what was read before, for searches ask the same again and again: by member, kind, batch size and lanes"""

    def profile(self, member: str, kind: str) -> Profile:
        """The profile of `member` on `kind`. Raises AllocationError when it was not measured."""
        try:
            return self.profiles[kind][member]
        except KeyError:
            mend = "`ripieno measure RUN` on such a device makes it"
            raise AllocationError(f"{member} has no profile on {kind}: {mend}") from None

    def seconds(self, member: str, device: Device, batch_size: int, lanes: int = 1) -> float:
        """Seconds of one batch on a device whose cores are shared out over `lanes` lanes.

        A lane of a GPU has the whole of it, in turns. One of a CPU has its part of the cores: the profile of such a
        part is used where there is one; without it a part is taken to be as much slower as it is smaller.
        """
        key = (member, device.kind, batch_size, lanes)
        if key not in self._known:
            part = self._part(member, device, lanes)
            slower = 1 if part is not None or device.type != "cpu" else lanes
            profile = part or self.profile(member, device.kind)
            # the engine's share grows with it: else a cut that nobody measured would look quicker than the whole
            self._known[key] = (seconds_at(profile.points, batch_size) + self.overhead) * slower
        return self._known[key]

    def measured(self, member: str, device: Device, lanes: int) -> bool:
        """Whether `member` was measured on a lane of `device` cut in `lanes`."""
        return self._part(member, device, lanes) is not None or lanes == 1

    def _part(self, member: str, device: Device, lanes: int) -> Profile | None:
        kind = partition_kind(device.kind, lanes) if lanes > 1 and device.type == "cpu" else None
        return self.profiles.get(kind, {}).get(member) if kind else None

    def bytes(self, member: str, device: Device, batch_size: int) -> int:
        """Bytes of `member` loaded on `device` and run in batches of `batch_size`, without the lane's own share."""
        key = (member, device.kind, batch_size, 0)
        if key not in self._known:
            self._known[key] = bytes_at(self.profile(member, device.kind).points, batch_size)
        return int(self._known[key])

    def base(self, device: Device) -> int:
        """Bytes of a lane of `device` before it holds a member: those of every runtime that members are run by."""
        most: dict[str, int] = {}
        for profile in self.profiles.get(device.kind, {}).values():
            runtime = profile.backend.partition(":")[0].partition("-")[0]
            most[runtime] = max(most.get(runtime, 0), profile.base)
        return sum(most.values())

    def batch_sizes(self, members: Iterable[str], devices: Sequence[Device]) -> tuple[int, ...]:
        """Batch sizes at which every one of `members` was measured on every one of `devices`, ascending."""
        measured = [
            {point.batch_size for point in self.profile(member, kind).points}
            for member in members
            for kind in {device.kind for device in devices}
        ]
        return tuple(sorted(set.intersection(*measured))) if measured else ()


def seconds_at(points: Sequence[BatchProfile], batch_size: int) -> float:
    """Seconds of a batch: measured, on the line between two that were, or in proportion beyond the last."""
    points = sorted(points, key=lambda p: p.batch_size)
    if batch_size >= points[-1].batch_size:
        return points[-1].seconds * batch_size / points[-1].batch_size
    return _between([(p.batch_size, p.seconds) for p in points], batch_size)


def bytes_at(points: Sequence[BatchProfile], batch_size: int) -> int:
    """Bytes at a batch size, never too few: beyond the last point by the steepest rise there was per sample."""
    points = sorted(points, key=lambda p: p.batch_size)
    last = points[-1]
    if batch_size <= last.batch_size:
        return round(_between([(p.batch_size, float(p.bytes)) for p in points], batch_size))
    rises = [(b.bytes - a.bytes) / (b.batch_size - a.batch_size) for a, b in itertools.pairwise(points)]
    slope = max(rises, default=last.bytes / last.batch_size)
    return round(last.bytes + max(0.0, slope) * (batch_size - last.batch_size))


def _between(line: Sequence[tuple[int, float]], x: int) -> float:
    """Height at `x` of the line through ascending points; below the first it stays level."""
    right = bisect.bisect_left(line, (x,))
    if right == 0:
        return line[0][1]
    if right < len(line) and line[right][0] == x:
        return line[right][1]
    (x0, y0), (x1, y1) = line[right - 1], line[right]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
