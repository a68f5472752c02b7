"""Figures of a run, as SVG text that works on a light or a dark page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.errors import need
from ripieno.reports.figures import Figures
from ripieno.types import Ensemble, Member

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, BLUE, ORANGE = "#7a7f87", "#3d85c6", "#e07b39"
"""Mid-tones that read on white and on black alike."""


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    need("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.grid(color=INK, alpha=0.2)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(colors=INK, which="both")
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an `<svg>` element; without a date or random ids, so that the same run gives the same report."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "ripieno", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, labelcolor=INK)


def learning_curves(members: Sequence[Member]) -> str:
    """Validation cross-entropy against epochs, a line a trial; the best trial stands out."""
    figure, axes = _axes("epoch", "validation cross-entropy")
    last: dict[int, Member] = {}
    for member in members:
        if member.curve and member.epoch >= last.get(member.trial, member).epoch:
            last[member.trial] = member
    best = min(last.values(), key=lambda m: m.losses["valid_cross_entropy"], default=None)
    for member in last.values():
        epochs = [e.epoch for e in member.curve]
        losses = [e.valid_cross_entropy for e in member.curve]
        strong = member is best
        style: dict[str, Any] = (
            {"color": ORANGE, "linewidth": 2, "zorder": 3} if strong else {"color": BLUE, "alpha": 0.4}
        )
        axes.plot(epochs, losses, marker=".", markersize=4, **style, label=f"best: {member.id}" if strong else None)
    if last:
        axes.set_yscale("log")
        _legend(axes)
    return _svg(figure)


def library(members: Sequence[Member], costs: Mapping[str, float], ensembles: Sequence[Ensemble]) -> str:
    """Validation cross-entropy against cost: every measured network, and the ensembles among them."""
    figure, axes = _axes("seconds for 2,000 images", "validation cross-entropy")
    measured = [m for m in members if m.id in costs]
    axes.scatter(
        [costs[m.id] for m in measured],
        [m.losses["valid_cross_entropy"] for m in measured],
        s=14,
        color=BLUE,
        alpha=0.6,
        label="networks",
    )
    if ensembles:
        axes.plot(
            [e.cost["seconds"] for e in ensembles],
            [e.losses["valid_cross_entropy"] for e in ensembles],
            color=ORANGE,
            marker="o",
            label="ensembles",
        )
        for e in ensembles:
            point = (e.cost["seconds"], e.losses["valid_cross_entropy"])
            label = f"{e.name} #{len(e.members)}"
            axes.annotate(label, point, (4, 4), textcoords="offset points", color=INK, fontsize=8)
    if measured:
        axes.set_xscale("log")
        axes.set_yscale("log")
        _legend(axes)
    return _svg(figure)


def front(ensembles: Sequence[Ensemble], metric: str) -> str:
    """Error of the ensembles against their budget, on validation and test samples."""
    figure, axes = _axes("budget (seconds for 2,000 images)", f"error: 100 - {metric} (%)")
    key = metric.replace("-", "_")
    for split, color in (("valid", BLUE), ("test", ORANGE)):
        shown = [e for e in ensembles if f"{split}_{key}" in e.losses]
        if shown:
            axes.plot(
                [e.budget["seconds"] for e in shown],
                [100 - 100 * e.losses[f"{split}_{key}"] for e in shown],
                color=color,
                marker="o",
                label=split,
            )
    if ensembles:
        _legend(axes)
    return _svg(figure)


def error_by_time(found: Figures, metric: str) -> str:
    """Figures 3 and 4: test error against the training time of the search, a line a budget."""
    figure, axes = _axes("training hours, all slots together", f"test error: 100 - {metric} (%)")
    shades = np.linspace(0.35, 1.0, len(found.budgets))
    for budget, shade in zip(found.budgets, shades, strict=True):
        known = [(h, 100 * e) for h, e in zip(found.hours, found.error_by_time[budget], strict=True) if e is not None]
        if known:
            hours, errors = zip(*known, strict=True)
            axes.plot(hours, errors, color=BLUE, alpha=float(shade), marker=".", label=f"B={budget:g}")
    _legend(axes)
    return _svg(figure)


def smobf_and_forward(found: Figures, metric: str) -> str:
    """Figures 5 and 6: cost against test error of SMOBF (a budget a point) and of forward (a size a point)."""
    figure, axes = _axes(f"test error: 100 - {metric} (%)", "cost (seconds for 2,000 images)")
    for method, color in (("smobf", BLUE), ("forward", ORANGE)):
        points = [p for p in found.points if p.method == method]
        axes.plot([100 * p.error for p in points], [p.cost for p in points], color=color, marker="o", label=method)
        for p in points:
            label = p.label if method == "forward" else f"{p.label} #{p.members}"
            axes.annotate(label, (100 * p.error, p.cost), (4, 4), textcoords="offset points", color=INK, fontsize=8)
    _legend(axes)
    return _svg(figure)
