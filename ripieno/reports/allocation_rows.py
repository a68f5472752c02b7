"""Rows of an allocation, which the bars of the terminal, the SVG diagrams and the report's plot show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ripieno.allocation.explain import DeviceUse, Explanation, PlacementReport
from ripieno.allocation.memory import format_bytes
from ripieno.types import Allocation, Placement

COLOURS = ("#3d85c6", "#e07b39", "#6aa84f", "#a64d79", "#bf9000", "#45818e", "#8e7cc3", "#cc4125")
"""Colours of the members in order, mid-tones legible on white and on black; repeated when exhausted."""


@dataclass(frozen=True)
class AllocationRow:
    """One placement to draw, with its member's colour and its fractions of the time, predicted and measured."""

    device: str
    worker: int
    member: str
    colour: str
    batch: int
    bytes: int | None
    """None without profiles, as is `share`"""
    share: float | None
    measured: float | None

    @property
    def time(self) -> float | None:
        """Fraction of the time: predicted, else measured."""
        return self.measured if self.share is None else self.share


def rows_by_worker(source: Explanation | Allocation) -> dict[tuple[str, int], list[AllocationRow]]:
    """Return the rows of each (device, worker), devices in the order of `source`."""
    placements: Sequence[PlacementReport | Placement] = source.placements
    known: list[tuple[int | None, float | None, float | None]]
    if isinstance(source, Explanation):
        devices = [use.device for use in source.devices]
        known = [(p.bytes, p.share, p.measured) for p in source.placements]
    else:
        devices = [device.name for device in source.devices]
        shares = source.shares if len(source.shares) == len(source.placements) else [None] * len(source.placements)
        known = [(None, None, measured) for measured in shares]
    members = list(dict.fromkeys(p.member for p in placements))
    workers = sorted({(p.device, p.lane) for p in placements}, key=lambda w: (devices.index(w[0]), w[1]))
    rows: dict[tuple[str, int], list[AllocationRow]] = {worker: [] for worker in workers}
    for p, facts in zip(placements, known, strict=True):
        colour = COLOURS[members.index(p.member) % len(COLOURS)]
        rows[p.device, p.lane].append(AllocationRow(p.device, p.lane, p.member, colour, p.batch_size, *facts))
    return rows


def bar_lengths(rows: Sequence[AllocationRow]) -> list[float]:
    """Return each row's fraction of its worker's bar: the time predicted, else measured, else equal parts."""
    known = [1 / len(rows) if r.time is None else r.time for r in rows]
    return [t / max(1.0, sum(known)) for t in known]  # measured times on shared cores may sum to more than 1


def time_text(rows: Sequence[AllocationRow]) -> str:
    """Return the fractions of time that a worker computes: `75% predicted, 80% measured`; empty if unknown."""
    times = {"predicted": [r.share for r in rows], "measured": [r.measured for r in rows]}
    known = {name: [t for t in fractions if t is not None] for name, fractions in times.items()}
    return ", ".join(f"{sum(fractions):.0%} {name}" for name, fractions in known.items() if fractions)


def memory_text(use: DeviceUse) -> str:
    """Return the memory used and left on a device."""
    return f"{format_bytes(use.used)} of {format_bytes(use.used + use.left)}, {format_bytes(use.left)} left"
