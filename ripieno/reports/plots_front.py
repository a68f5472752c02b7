"""Plots of the front: error by budget, figures 3 to 6 of the paper, confusion and reliability of one ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ripieno.reports import figure_style
from ripieno.reports.calibration import Bin
from ripieno.reports.figure_style import BLUE, INK, ORANGE
from ripieno.reports.figures import Figures
from ripieno.types import Ensemble

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def front(ensembles: Sequence[Ensemble], kind: str, unit: str, score: str, metric: str) -> Figure:
    """Plot the error of the front's ensembles against their cost, on validation and test samples."""
    figure, axes = figure_style.axes(f"cost ({unit})", f"error: 100 - {metric} (%)")
    for split, colour, marker in (("valid", BLUE, "s"), ("test", ORANGE, "o")):
        key = f"{split}_{score}"
        points = [(e.cost[kind], 100 - 100 * e.losses[key]) for e in ensembles if key in e.losses]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=split)
    figure_style.logarithmic(axes.xaxis, [e.cost[kind] for e in ensembles])
    figure_style.legend(axes)
    return figure


def error_by_time(found: Figures, metric: str) -> Figure:
    """Plot figures 3 and 4: test error against the training time of the search, a line per budget."""
    hours = max(found.hours)
    scale, unit = (60, "minutes") if hours < 2 else (1, "hours")
    figure, axes = figure_style.axes(f"training {unit}, all slots together", f"test error: 100 - {metric} (%)")
    shades = np.linspace(0.3, 1.0, len(found.budgets))
    for budget, shade in zip(found.budgets, shades, strict=True):
        known = [(h, 100 * e) for h, e in zip(found.hours, found.error_by_time[budget], strict=True) if e is not None]
        if known:
            times, errors = zip(*known, strict=True)
            last = budget == found.budgets[-1]
            axes.plot(
                [t * scale for t in times], errors, color=ORANGE if last else BLUE, alpha=1.0 if last else float(shade),
                marker="o", markersize=3, label=f"B = {budget:g}",
            )  # fmt: skip
    figure_style.legend(axes)
    return figure


def smobf_and_forward(found: Figures, metric: str, unit: str) -> Figure:
    """Plot figures 5 and 6: cost against test error of SMOBF (a point per budget) and forward (a point per size)."""
    figure, axes = figure_style.axes(f"test error: 100 - {metric} (%)", f"cost ({unit})")
    for method, colour, marker in (("smobf", BLUE, "o"), ("forward", ORANGE, "s")):
        points = [p for p in found.points if p.method == method]
        axes.plot(
            [100 * p.error for p in points], [p.cost for p in points],
            color=colour, marker=marker, markersize=4, linewidth=1, label=method,
        )  # fmt: skip
        labelled: set[tuple[float, float]] = set()
        for p in points:
            position = (round(100 * p.error, 2), round(p.cost, 3))
            if position not in labelled:  # several budgets may select the same ensemble: label it once
                axes.annotate(
                    f"#{p.members}", (100 * p.error, p.cost), (4, 3), textcoords="offset points", color=INK, fontsize=7
                )
            labelled.add(position)
    figure_style.logarithmic(axes.yaxis, [p.cost for p in found.points])
    figure_style.legend(axes)
    return figure


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Figure:
    """Plot true class (rows) by predicted class (columns): shares of the row as colour, counts as text."""
    figure, axes = figure_style.axes("predicted class", "true class", (5.4, 5.0))
    table = np.array(counts, dtype=float)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    labels = [figure_style.short(n, 12) for n in names]
    axes.set_xticks(range(len(names)), labels, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), labels)
    for (row, column), count in np.ndenumerate(table):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:g}", ha="center", va="center", fontsize=7, color=colour)
    return figure


def reliability(bins: Sequence[Bin]) -> Figure:
    """Plot accuracy against confidence; the diagonal is perfect calibration."""
    figure, axes = figure_style.axes("confidence", "accuracy", (4.0, 3.6))
    width = 1 / len(bins)
    axes.bar(
        [(i + 0.5) * width for i in range(len(bins))], [b.accuracy for b in bins], width * 0.9, color=BLUE, alpha=0.6
    )
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return figure
