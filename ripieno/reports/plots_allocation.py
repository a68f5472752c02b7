"""An allocation as a picture: devices, their lanes, who sits in each, and for how much of its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ripieno.allocation import memory
from ripieno.allocation.explain import Explanation, PlacementReport, costs_of, explain
from ripieno.errors import AllocationError
from ripieno.library import Library
from ripieno.reports import figure_style
from ripieno.reports.figure_style import BLUE, GREEN, INK, ORANGE, TEXT
from ripieno.types import Allocation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LANES = 64
"""Lanes drawn at most."""


def explain_or_none(library: Library, allocation: Allocation) -> Explanation | None:
    """The allocation explained by the model; None when profiles it needs are not in the run."""
    try:
        return explain(allocation, costs_of(library, allocation))
    except AllocationError:
        return None


def in_words(found: Explanation) -> str:
    """What sets the pace, and what memory is left."""
    uses = [
        f"{d.device} {memory.format_bytes(d.used)} of {memory.format_bytes(d.used + d.left)}" for d in found.devices
    ]
    return f"{found.limits.rstrip('.')}. Memory: {', '.join(uses)}."


def picture(allocation: Allocation, seats: Sequence[PlacementReport]) -> Figure:
    """A bar a lane, a segment a placement: as long as its share of the lane's time, equal ones when it is unknown."""
    lanes = sorted({(p.device, p.lane) for p in allocation.placements})[:LANES]
    figure, axes = figure_style.axes(
        "share of the lane's time (%)" if seats else "", "", (figure_style.WIDE[0], 0.8 + 0.4 * len(lanes))
    )
    share = {(s.member, s.device, s.lane): 100 * s.share for s in seats}
    colours = (BLUE, GREEN, ORANGE)
    members = sorted({p.member for p in allocation.placements})
    for row, lane in enumerate(lanes):
        own = [p for p in allocation.placements if (p.device, p.lane) == lane]
        left = 0.0
        for p in own:
            width = share.get((p.member, *lane), 0.0) if seats else 100 / len(own)
            colour = colours[members.index(p.member) % len(colours)]
            axes.barh([row], [width], left=[left], height=0.72, color=colour, alpha=0.4, edgecolor=INK, linewidth=0.4)
            apart = " " if width > 26 else "\n"
            if width > 15:
                text = f"{figure_style.short(p.member, 12)}{apart}×{p.batch_size}"
                axes.text(left + width / 2, row, text, ha="center", va="center", fontsize=7, color=TEXT)
            left += width
    axes.set_yticks(range(len(lanes)), [f"{figure_style.short(device, 12)} lane {lane}" for device, lane in lanes])
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    if not seats:
        axes.set_xticks([])
    return figure


def speed(allocations: Sequence[Allocation]) -> Figure:
    """Samples a second of each allocation: where it started, measured, by the model, and what none can exceed."""
    figure, axes = figure_style.axes("images a second", "", (figure_style.WIDE[0], 1.1 + 0.6 * len(allocations)))
    kinds = (
        ("start", INK, [a.start_throughput for a in allocations]),
        ("measured", ORANGE, [a.throughput for a in allocations]),
        ("by the model", BLUE, [a.predicted for a in allocations]),
        ("bound", GREEN, [a.bound for a in allocations]),
    )
    for place, (label, colour, values) in enumerate(kinds):
        known = [(row + 0.2 * (place - 1.5), v) for row, v in enumerate(values) if v is not None]
        if known:
            rows, lengths = zip(*known, strict=True)
            axes.barh(rows, lengths, height=0.17, color=colour, alpha=0.8, label=label)
    axes.set_yticks(range(len(allocations)), [figure_style.short(a.name, 18) for a in allocations])
    axes.set_ylim(-0.5, len(allocations) - 0.5)  # a bar alone is as thin as one of four
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    figure_style.legend(axes)
    return figure
