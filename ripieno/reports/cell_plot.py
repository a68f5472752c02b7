"""Plot of a cell: its inputs at the left, its operators and sums, and its result at the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ripieno.models.cell_config import FAMILY, cell_of
from ripieno.models.cell_plan import cell_kind
from ripieno.models.cell_spec import LOOKBACKS, OPERATORS, Cell
from ripieno.reports import figure_style
from ripieno.reports.figure_style import BLUE, GREEN, INK, ORANGE, TEXT
from ripieno.reports.plot_files import PlotFile, PlotWriter
from ripieno.types import Member

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 4
"""Maximum number of cells that are drawn, the best."""
STEP, REACH, SIDE = 2.6, 1.15, 0.27
"""Distance of blocks of neighbouring heights, that of an operator before its sum, and its height above the middle."""
SHIFT = 0.3
_COLOURS = {"identity": INK, "max": ORANGE, "average": ORANGE, "lstm": GREEN, "gru": GREEN}
"""Colours of operators that are no convolutions."""


def draw_cells(folder: PlotWriter, members: Sequence[Member], loss: str) -> list[PlotFile]:
    """Draw the best cells of `members`, each once; nothing where no member is a network of cells."""
    best: dict[Cell, Member] = {}
    for member in sorted((m for m in members if m.family == FAMILY), key=lambda m: m.loss):
        best.setdefault(cell_of(member.configuration, cell_kind(member.input)), member)
    return [
        folder.plot(
            f"cell-{member.id}",
            f"Cell of {member.id}",
            draw_cell(cell),
            f"The cell of {member.id}: {cell}.",
            "members",
            f"{cell}; {loss} {member.loss:.4f}",
        )
        for cell, member in list(best.items())[:MOST]
    ]


def draw_cell(cell: Cell) -> Figure:
    """Plot the graph of a cell; call it within `figure_style.style()`."""
    made = figure_style.axes()
    made.set_axis_off()
    places = block_places(cell)
    end = (STEP * (max(cell.heights) + 0.7), 0.0)

    def line(start: tuple[float, float], stop: tuple[float, float]) -> None:
        made.plot(*zip(start, stop, strict=True), color=INK, linewidth=0.9, alpha=0.8, zorder=1)

    def label(place: tuple[float, float], text: str, colour: str, size: float = 7.0) -> None:
        box = {"boxstyle": "round,pad=0.3", "facecolor": colour, "edgecolor": "none"}
        made.text(*place, text, color=TEXT, fontsize=size, ha="center", va="center", bbox=box, zorder=3).set_in_layout(
            False
        )

    for number, block in enumerate(cell.blocks):
        x, y = places[number]
        for edge, side in zip(block, (SIDE, -SIDE), strict=True):
            operator = (x - REACH, y + side)
            line(places[edge.input], operator)
            line(operator, (x, y))
            label(operator, edge.operator, _colour(edge.operator))
        label((x, y), "+", INK, 8.0)
        if number in cell.outputs:
            line((x, y), end)
    for lookback in sorted(cell.lookbacks):
        label(places[lookback], str(lookback), INK)
    label(end, "result", INK)
    heights = [y for _, y in (*places.values(), end)]
    made.set_xlim(-0.6, end[0] + 0.9)
    made.set_ylim(min(heights) - 0.7, max(heights) + 0.7)
    return figure_style.finish(made)


def block_places(cell: Cell) -> dict[int, tuple[float, float]]:
    """Return the places of the inputs -2 and -1 and of the blocks: by height from left to right, below each other."""
    places = {lookback: (0.0, 1.0 if lookback == LOOKBACKS[0] else -1.0) for lookback in LOOKBACKS}
    for height in set(cell.heights):
        level = [number for number, own in enumerate(cell.heights) if own == height]
        for row, number in enumerate(level):
            # neighbouring heights are shifted, so that few lines pass a block that they do not reach
            places[number] = (STEP * height, (len(level) - 1) / 2 - row + (SHIFT if height % 2 else -SHIFT))
    return places


def _colour(name: str) -> str:
    known = {**OPERATORS["image"], **OPERATORS["series"]}
    return _COLOURS.get(known[name].form, BLUE)
