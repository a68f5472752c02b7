"""Who sits where, with what batch, memory and share of time, and what limits the throughput: data for a table."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ripieno.allocation import memory, throughput_model
from ripieno.allocation.costs import ENGINE_OVERHEAD, ProfileCosts
from ripieno.profiles.devices import partition_kind
from ripieno.types import Allocation, Device, Profile

if TYPE_CHECKING:
    from ripieno.library import Library


@dataclass(frozen=True)
class PlacementReport:
    """One placement: `share` of its resource's time by the model, `measured` share where one was handed in."""

    member: str
    device: str
    lane: int
    batch_size: int
    bytes: int
    seconds: float
    """of a batch"""
    rate: float
    """samples per second it takes of the ensemble's"""
    share: float
    measured: float | None = None


@dataclass(frozen=True)
class DeviceUse:
    """One device: bytes used and left, and the largest share of time any of its lanes computes."""

    device: str
    used: int
    left: int
    busy: float
    kind: str = ""
    base: int = 0
    """bytes of `used` that its lanes take before they hold a member"""


@dataclass(frozen=True)
class Explanation:
    """An allocation explained; `limits` is one line on what sets its pace."""

    seats: tuple[PlacementReport, ...]
    devices: tuple[DeviceUse, ...]
    throughput: float
    """predicted, samples per second"""
    bound: float | None
    limits: str
    measured: float | None = None
    """samples per second in the last bench"""
    name: str = ""
    filled: float | None = None
    """how full the busiest member's batches were in the last bench, 0..1 of those planned"""

    @property
    def slower(self) -> float | None:
        """Times as long as in the profiles that a sample took to compute in the last bench; None without one."""
        if not self.measured or any(s.measured is None for s in self.seats):
            return None
        planned = sum(s.share for s in self.seats) / self.throughput
        return sum(s.measured or 0.0 for s in self.seats) / self.measured / planned

    @property
    def busiest(self) -> float | None:
        """Share of the last bench's time that the busiest resource computed; None without one."""
        total: dict[tuple[str, int], float] = {}
        for s in self.seats:
            if s.measured is None:
                return None
            lane = s.lane if s.device.startswith("cpu") else 0
            total[s.device, lane] = total.get((s.device, lane), 0.0) + s.measured
        return max(total.values(), default=None)

    @property
    def gap_to_bound(self) -> float | None:
        """By what share the prediction stays below the bound: 0 when no allocation can be faster by the model."""
        return max(0.0, 1 - self.throughput / self.bound) if self.bound else None


def costs_of(library: Library, allocation: Allocation) -> ProfileCosts:
    """What the placements of `allocation` cost where they sit, by the profiles of what runs each of them."""
    kinds = {d.name: d.kind for d in allocation.devices}
    backends = allocation.backends or (None,) * len(allocation.placements)
    known = functools.cache(library.profiles)
    found: dict[str, dict[str, Profile]] = {}
    for p, backend in zip(allocation.placements, backends, strict=True):
        kind = kinds.get(p.device, "")
        lanes = len({q.lane for q in allocation.placements if q.device == p.device})
        for one in {kind, partition_kind(kind, lanes) or kind} - {""}:
            if (profile := known(one, backend).get(p.member)) is not None:
                found.setdefault(one, {})[p.member] = profile
    return ProfileCosts(found, ENGINE_OVERHEAD)


def explain(
    allocation: Allocation, costs: ProfileCosts, measured: Mapping[tuple[str, str, int], float] | None = None
) -> Explanation:
    """Explain `allocation` by the profiles in `costs`.

    `measured` are shares of time that placements (member, device, lane) really computed, by default those that the
    allocation has of its last bench. Raises AllocationError for a missing profile.
    """
    placements, devices = allocation.placements, allocation.devices
    loads = throughput_model.workload(placements, devices, costs)
    found = throughput_model.solve(loads)
    by_name = {d.name: d for d in devices}
    lanes = {d.name: len({p.lane for p in placements if p.device == d.name}) for d in devices}
    if measured is None and len(allocation.shares) == len(placements):
        keys = [(p.member, p.device, p.lane) for p in placements]
        measured = dict(zip(keys, allocation.shares, strict=True))
    seats = tuple(
        PlacementReport(
            p.member,
            p.device,
            p.lane,
            p.batch_size,
            costs.bytes(p.member, by_name[p.device], p.batch_size),
            costs.seconds(p.member, by_name[p.device], p.batch_size, lanes[p.device]),
            rate,
            rate * seconds,
            (measured or {}).get((p.member, p.device, p.lane)),
        )
        for p, rate, seconds in zip(placements, found.rates, loads.seconds, strict=True)
    )
    taken = memory.device_usage(placements, devices, costs)
    uses = tuple(
        DeviceUse(
            d.name,
            taken[d.name],
            d.memory - taken[d.name],
            max((b for (name, _), b in found.busy.items() if name == d.name), default=0.0),
            d.kind,
            lanes[d.name] * costs.base(d),
        )
        for d in devices
    )
    limits = _limits(found, devices)
    known = allocation.throughput, allocation.name, allocation.filled
    return Explanation(seats, uses, found.throughput, allocation.bound, limits, *known)


def _limits(found: throughput_model.Prediction, devices: Sequence[Device]) -> str:
    """One sentence: the devices that are always busy, the members that cost the pace there, and who is idle."""
    if not found.rates:
        return "Nobody is placed."
    full = sorted({name for (name, _), busy in found.busy.items() if busy > 0.999})
    idle = [d.name for d in devices if not any(name == d.name for name, _ in found.busy)]
    dear = [m for m, price in sorted(found.prices.items(), key=lambda pair: (-pair[1], pair[0])) if price > 0.01]
    most = _some([f"{m} ({found.prices[m]:.0%})" for m in dear])
    verb = "sets" if len(full) == 1 else "set"
    text = f"{_some(full)} {verb} the pace, always busy; what costs it most: {most}"
    return f"{text}; idle: {_some(idle)}." if idle else f"{text}."


def _some(words: Sequence[str], most: int = 4) -> str:
    """The first of `words`, and how many more there are."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
