"""Explanation of an allocation: memory and time of each placement, and the throughput bottleneck."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ripieno.allocation import memory, throughput_model
from ripieno.allocation.costs import ENGINE_OVERHEAD, ProfileCosts
from ripieno.allocation.units import PlacementUnits
from ripieno.deprecation import warn_renamed
from ripieno.profiles.devices import partition_kind
from ripieno.types import Allocation, Device, Profile

if TYPE_CHECKING:
    from ripieno.library import Library


@dataclass(frozen=True)
class PlacementReport:
    """One placement: `share` is the predicted fraction of its resource's time, `measured` the measured one."""

    member: str
    device: str
    lane: int
    batch_size: int
    bytes: int
    seconds: float
    """per batch"""
    rate: float
    """samples per second of the ensemble that this placement processes"""
    share: float
    measured: float | None = None


@dataclass(frozen=True)
class DeviceUse:
    """One device: bytes used and left, and the largest fraction of time that one of its workers computes."""

    device: str
    used: int
    left: int
    busy: float
    kind: str = ""
    base: int = 0
    """bytes of `used` that its workers take without members"""


class Explanation(msgspec.Struct, frozen=True):
    """Explanation of an allocation; `limits` is one line on the throughput bottleneck."""

    placements: tuple[PlacementReport, ...] = msgspec.field(name="seats")  # the key in JSON
    devices: tuple[DeviceUse, ...]
    throughput: float
    """predicted, samples per second"""
    bound: float | None
    limits: str
    measured: float | None = None
    """samples per second in the last benchmark"""
    name: str = ""
    filled: float | None = None
    """mean batch size of the busiest member in the last benchmark, as a fraction 0..1 of the planned one"""

    @property
    def seats(self) -> tuple[PlacementReport, ...]:
        """Former name of `placements`."""
        warn_renamed("Explanation.seats", "placements")
        return self.placements

    @property
    def slower(self) -> float | None:
        """Compute time per sample in the last benchmark, relative to the profiles; None without a benchmark."""
        if not self.measured or any(s.measured is None for s in self.placements):
            return None
        planned = sum(s.share for s in self.placements) / self.throughput
        return sum(s.measured or 0.0 for s in self.placements) / self.measured / planned

    @property
    def busiest(self) -> float | None:
        """Fraction of time the busiest resource computed in the last benchmark; None without a benchmark."""
        total: dict[tuple[str, int], float] = {}
        for s in self.placements:
            if s.measured is None:
                return None
            lane = s.lane if s.device.startswith("cpu") else 0
            total[s.device, lane] = total.get((s.device, lane), 0.0) + s.measured
        return max(total.values(), default=None)

    @property
    def gap_to_bound(self) -> float | None:
        """Relative gap of the prediction to the bound; 0 if no allocation can be faster by the model."""
        return max(0.0, 1 - self.throughput / self.bound) if self.bound else None


def explain_from(library: Library, allocation: Allocation) -> Explanation:
    """Explain `allocation` by the profiles of its backends in `library`; raises as `explain`."""
    members = tuple(dict.fromkeys(p.member for p in allocation.placements))
    units = PlacementUnits(members, {m: library.member(m).backbone for m in members if m in library})
    return explain(allocation, _costs_of(library, allocation, units), units)


def _costs_of(library: Library, allocation: Allocation, units: PlacementUnits) -> ProfileCosts:
    """Return the costs of the units of `allocation`, from the profiles of each placement's backend."""
    kinds = {d.name: d.kind for d in allocation.devices}
    backends = allocation.backends or (None,) * len(allocation.placements)
    known = functools.cache(library.profiles)
    profiles: dict[str, dict[str, Profile]] = {}
    for p, backend in zip(allocation.placements, backends, strict=True):
        kind = kinds.get(p.device, "")
        lanes = len({q.lane for q in allocation.placements if q.device == p.device})
        for one in {kind, partition_kind(kind, lanes) or kind} - {""}:
            for name in (p.member, units.unit_of(p.member)):
                if (profile := known(one, backend).get(name)) is not None:
                    profiles.setdefault(one, {})[name] = profile
    return ProfileCosts({kind: units.profiles(of) for kind, of in profiles.items()}, ENGINE_OVERHEAD)


def explain(allocation: Allocation, costs: ProfileCosts, units: PlacementUnits | None = None) -> Explanation:
    """Explain `allocation` by `costs` and its last benchmark. Raises AllocationError for a missing profile.

    With `units` the costs are those of units. Time and memory of a unit are divided equally among its members.
    """
    units = units or PlacementUnits(tuple(dict.fromkeys(p.member for p in allocation.placements)), {})
    placements, devices = units.collapse(allocation.placements), allocation.devices
    loads = throughput_model.workload(placements, devices, costs)
    prediction = throughput_model.solve(loads)
    by_name = {d.name: d for d in devices}
    lanes = {d.name: len({p.lane for p in placements if p.device == d.name}) for d in devices}
    known = len(allocation.shares) == len(allocation.placements)
    shares = allocation.shares if known else (None,) * len(allocation.placements)
    reports = []
    for p, measured in zip(allocation.placements, shares, strict=True):
        (unit,) = units.collapse([p])
        at, parts = placements.index(unit), len(units.members[unit.member])
        size = costs.bytes(unit.member, by_name[p.device], p.batch_size)
        seconds = costs.seconds(unit.member, by_name[p.device], p.batch_size, lanes[p.device])
        rate, share = prediction.rates[at], prediction.rates[at] * loads.seconds[at]
        own = size // parts, seconds / parts, rate, share / parts, measured
        reports.append(PlacementReport(p.member, p.device, p.lane, p.batch_size, *own))
    used = memory.device_usage(placements, devices, costs)
    uses = tuple(
        DeviceUse(
            d.name,
            used[d.name],
            d.memory - used[d.name],
            max((b for (name, _), b in prediction.busy.items() if name == d.name), default=0.0),
            d.kind,
            lanes[d.name] * costs.base(d),
        )
        for d in devices
    )
    limits = _limits(prediction, devices)
    last = allocation.throughput, allocation.name, allocation.filled
    return Explanation(tuple(reports), uses, prediction.throughput, allocation.bound, limits, *last)


def _limits(prediction: throughput_model.Prediction, devices: Sequence[Device]) -> str:
    """Describe in one sentence the bottleneck devices, the members that limit them, and the idle devices."""
    if not prediction.rates:
        return "No member is placed."
    full = sorted({name for (name, _), busy in prediction.busy.items() if busy > 0.999})
    idle = [d.name for d in devices if not any(name == d.name for name, _ in prediction.busy)]
    prices = sorted(prediction.prices.items(), key=lambda pair: (-pair[1], pair[0]))
    most = _some([f"{m} ({price:.0%})" for m, price in prices if price > 0.01])
    verb = "limits" if len(full) == 1 else "limit"
    text = f"{_some(full)} {verb} the throughput (always busy); members that limit it most: {most}"
    return f"{text}; idle: {_some(idle)}." if idle else f"{text}."


def _some(words: Sequence[str], most: int = 4) -> str:
    """Join the first of `words` and add the number of the remaining ones."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
