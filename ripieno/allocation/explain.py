"""Who sits where, with what batch, memory and share of time, and what limits the throughput: data for a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ripieno.allocation import memory, simulate
from ripieno.allocation.costs import Costs
from ripieno.types import Allocation, Device


@dataclass(frozen=True)
class Seat:
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


@dataclass(frozen=True)
class Explanation:
    """An allocation explained; `limits` is one line on what sets its pace."""

    seats: tuple[Seat, ...]
    devices: tuple[DeviceUse, ...]
    throughput: float
    """predicted, samples per second"""
    bound: float | None
    limits: str


def explain(
    allocation: Allocation, costs: Costs, measured: Mapping[tuple[str, str, int], float] | None = None
) -> Explanation:
    """Explain `allocation` by the profiles in `costs`.

    `measured` are shares of time that placements (member, device, lane) really computed. Raises AllocationError for a
    missing profile.
    """
    placements, devices = allocation.placements, allocation.devices
    loads = simulate.load(placements, devices, costs)
    found = simulate.solve(loads)
    by_name = {d.name: d for d in devices}
    lanes = {d.name: len({p.lane for p in placements if p.device == d.name}) for d in devices}
    seats = tuple(
        Seat(
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
    taken = memory.used(placements, devices, costs)
    uses = tuple(
        DeviceUse(
            d.name,
            taken[d.name],
            d.memory - taken[d.name],
            max((b for (name, _), b in found.busy.items() if name == d.name), default=0.0),
        )
        for d in devices
    )
    return Explanation(seats, uses, found.throughput, allocation.bound, _limits(found, devices))


def _limits(found: simulate.Prediction, devices: Sequence[Device]) -> str:
    """What sets the pace: the members with a price, and the devices that are always busy."""
    full = sorted({name for (name, _), busy in found.busy.items() if busy > 0.999})
    idle = [d.name for d in devices if not any(name == d.name for name, _ in found.busy)]
    dear = [m for m, price in sorted(found.prices.items(), key=lambda pair: (-pair[1], pair[0])) if price > 0.01]
    most = ", ".join(f"{m} ({found.prices[m]:.0%})" for m in dear[:4]) + (", ..." if len(dear) > 4 else "")
    text = f"{', '.join(full)} always busy, by {most}"
    return f"{text}; idle: {', '.join(idle)}" if idle else text
