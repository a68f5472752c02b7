"""Plots of allocations: the placements on each worker of each device with their shares of time, and throughput."""

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
"""Maximum number of workers drawn."""


def explain_or_none(library: Library, allocation: Allocation) -> Explanation | None:
    """Explain the allocation by the model; return None if the run lacks profiles that it needs."""
    try:
        return explain(allocation, costs_of(library, allocation))
    except AllocationError:
        return None


def in_words(found: Explanation) -> str:
    """Describe the throughput limit and the memory of each device."""
    uses = [
        f"{d.device} {memory.format_bytes(d.used)} of {memory.format_bytes(d.used + d.left)}" for d in found.devices
    ]
    return f"{found.limits.rstrip('.')}. Memory: {', '.join(uses)}."


def picture(allocation: Allocation, reports: Sequence[PlacementReport]) -> Figure:
    """Plot a bar per worker with a segment per placement: its share of the worker's time; equal if unknown."""
    workers = sorted({(p.device, p.lane) for p in allocation.placements})[:LANES]
    figure, axes = figure_style.axes(
        "share of the worker's time (%)" if reports else "", "", (figure_style.WIDE[0], 0.8 + 0.4 * len(workers))
    )
    share = {(s.member, s.device, s.lane): 100 * s.share for s in reports}
    colours = (BLUE, GREEN, ORANGE)
    members = sorted({p.member for p in allocation.placements})
    for row, worker in enumerate(workers):
        placements = [p for p in allocation.placements if (p.device, p.lane) == worker]
        left = 0.0
        for p in placements:
            width = share.get((p.member, *worker), 0.0) if reports else 100 / len(placements)
            colour = colours[members.index(p.member) % len(colours)]
            axes.barh([row], [width], left=[left], height=0.72, color=colour, alpha=0.4, edgecolor=INK, linewidth=0.4)
            separator = " " if width > 26 else "\n"
            if width > 15:
                text = f"{figure_style.short(p.member, 12)}{separator}×{p.batch_size}"
                axes.text(left + width / 2, row, text, ha="center", va="center", fontsize=7, color=TEXT)
            left += width
    labels = [f"{figure_style.short(device, 12)} worker {number}" for device, number in workers]
    axes.set_yticks(range(len(workers)), labels)
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    if not reports:
        axes.set_xticks([])
    return figure


def speed(allocations: Sequence[Allocation]) -> Figure:
    """Plot samples/s of each allocation: at the start, measured, predicted, and the upper bound."""
    figure, axes = figure_style.axes("images/s", "", (figure_style.WIDE[0], 1.1 + 0.6 * len(allocations)))
    kinds = (
        ("start", INK, [a.start_throughput for a in allocations]),
        ("measured", ORANGE, [a.throughput for a in allocations]),
        ("predicted", BLUE, [a.predicted for a in allocations]),
        ("bound", GREEN, [a.bound for a in allocations]),
    )
    for index, (label, colour, values) in enumerate(kinds):
        known = [(row + 0.2 * (index - 1.5), v) for row, v in enumerate(values) if v is not None]
        if known:
            rows, lengths = zip(*known, strict=True)
            axes.barh(rows, lengths, height=0.17, color=colour, alpha=0.8, label=label)
    axes.set_yticks(range(len(allocations)), [figure_style.short(a.name, 18) for a in allocations])
    axes.set_ylim(-0.5, len(allocations) - 0.5)  # keeps a single bar as thin as one of four
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    figure_style.legend(axes)
    return figure
