"""Plots of a comparison, a line for each run. Call each function within `figure_style.style()`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any, cast

from ripieno.reports import figure_style
from ripieno.reports.figure_style import BLUE, GREEN, INK, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Figure

StepLine = Sequence[tuple[float, float]]
"""Points from left to right."""
LOOKS = tuple((colour, dashes) for dashes, colour in product(("-", "--", ":", "-."), (BLUE, ORANGE, GREEN)))
"""Colour and dashes of the first runs; those after them begin again."""
NAME = 18
"""Maximum length of a name in a legend."""


def best_loss_by_time(names: Sequence[str], curves: Sequence[StepLine], loss: str) -> Figure:
    """Plot the lowest loss so far against seconds of training, a line of steps for each run."""
    axes = _axes("training seconds, all slots together", f"validation {loss}", len(names))
    return _draw(axes, names, curves)


def fronts(names: Sequence[str], points: Sequence[StepLine], unit: str, loss: str) -> Figure:
    """Plot the lowest loss for each cost, a line of steps for each run with a dot at each point."""
    axes = _axes(f"cost ({unit})", f"validation {loss}", len(names))
    return _draw(axes, names, points, marker="o")


def _axes(x: str, y: str, runs: int) -> Axes:
    """Return an empty plot with room for a legend of `runs` names above it."""
    width, height = figure_style.WIDE
    return figure_style.axes(x, y, (width, height + 0.18 * (-(-runs // 2))))


def _draw(axes: Axes, names: Sequence[str], lines: Sequence[StepLine], marker: str = "") -> Figure:
    for name, line, (colour, dashes) in zip(names, lines, cycle(LOOKS), strict=False):
        if line:
            look: dict[str, Any] = {"color": colour, "linestyle": dashes, "marker": marker, "drawstyle": "steps-post"}
            label = figure_style.short(name, NAME)
            axes.plot(*zip(*line, strict=True), label=label, linewidth=1.5, markersize=4, **look)
    figure_style.logarithmic(axes.xaxis, [x for line in lines for x, _ in line])
    figure_style.logarithmic(axes.yaxis, [y for line in lines for _, y in line])
    axes.legend(
        frameon=False,
        labelcolor=INK,
        fontsize=8.5,
        handlelength=2.6,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
    )
    return cast("Figure", axes.figure)
