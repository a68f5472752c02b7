"""Plots of a search and its library. Each returns a figure and draws in `canvas.style()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ripieno.reports import figure_style
from ripieno.reports.figure_style import BLUE, GREEN, INK, ORANGE
from ripieno.reports.search import SlotInterval, TrialSummary, busy, numeric
from ripieno.types import Ensemble, Member

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

CURVES = 150
"""Learning curves at most: the best, and others evenly."""
BARS = 300
"""Jobs drawn one by one at most; more are drawn as a sum."""
DOTS = 300
"""Dots of one plot at most."""
CHOICES = 8
"""Words named on one axis at most."""


def learning_curves(trials: Sequence[TrialSummary]) -> Figure:
    """Validation cross-entropy against epochs, a line a trial with a dot where it was stopped; the best stands out."""
    figure, axes = figure_style.axes("epoch", "validation cross-entropy")
    best = min(trials, key=lambda t: t.loss, default=None)
    stops = sorted({t.stopped for t in trials})
    drawn = _some(trials, CURVES, best)
    for trial in drawn:
        epochs = [e.epoch for e in trial.curve]
        losses = [e.valid_cross_entropy for e in trial.curve]
        far = (1 + stops.index(trial.stopped)) / len(stops)
        look: dict[str, Any] = {"color": BLUE, "alpha": round(0.15 + 0.5 * far, 2), "linewidth": 0.6 + 0.8 * far}
        if trial is best:
            look = {"color": ORANGE, "linewidth": 2.2, "zorder": 4, "label": f"best: trial {trial.number}"}
        axes.plot(epochs, losses, **look)
    ends = [(t.curve[-1].epoch, t.curve[-1].valid_cross_entropy) for t in drawn]
    if ends:
        axes.plot(*zip(*ends, strict=True), "o", color=BLUE, markersize=2.5, alpha=0.8, label="stopped here")
    figure_style.logarithmic(axes.yaxis, [e.valid_cross_entropy for t in drawn for e in t.curve])
    figure_style.logarithmic(axes.xaxis, [e.epoch for t in drawn for e in t.curve])
    figure_style.legend(axes)
    return figure


def halving(rungs: Sequence[tuple[int, int, int]]) -> Figure:
    """How many trials got to each rung, and how many went on from it."""
    figure, axes = figure_style.axes("epochs trained", "trials")
    places = range(len(rungs))
    on = [came - stopped for _, came, stopped in rungs]
    axes.bar(places, [came for _, came, _ in rungs], color=BLUE, alpha=0.35, width=0.62, label="stopped")
    axes.bar(places, on, color=ORANGE, alpha=0.9, width=0.62, label="went on")
    for place, (_, came, _stopped) in zip(places, rungs, strict=True):
        axes.annotate(str(came), (place, came), (0, 3), "data", "offset points", ha="center", color=INK, fontsize=8)
    axes.set_xticks(list(places), [str(epoch) for epoch, *_ in rungs])
    axes.margins(y=0.12)
    figure_style.integers(axes.yaxis, [0])
    figure_style.legend(axes)
    return figure


def slots(stays: Sequence[SlotInterval]) -> Figure:
    """Which slot trained when; with many jobs, how many slots were busy."""
    hours = max(s.end for s in stays)
    scale, unit = (60, "minutes") if hours < 2 else (1, "hours")
    figure, axes = figure_style.axes(f"{unit} since the first job", "slot" if len(stays) <= BARS else "slots busy")
    if len(stays) > BARS:
        moments, numbers = busy(stays)
        few = np.unique(np.linspace(0, len(moments) - 1, min(600, len(moments))).astype(int))
        times, counts = [moments[i] * scale for i in few], [numbers[i] for i in few]
        axes.fill_between(times, counts, step="post", color=BLUE, alpha=0.4, linewidth=0)
        figure_style.integers(axes.yaxis, [0])
        return figure
    epochs = sorted({s.epoch for s in stays})
    for epoch in epochs:
        far = (1 + epochs.index(epoch)) / len(epochs)
        own = [s for s in stays if s.epoch == epoch]
        lengths = [(s.end - s.start) * scale for s in own]
        axes.barh(
            [s.slot for s in own], lengths, left=[s.start * scale for s in own], height=0.7,
            color=BLUE, alpha=round(0.2 + 0.7 * far, 2), label=f"to epoch {epoch}" if len(epochs) <= 6 else None,
            linewidth=0,
        )  # fmt: skip
    axes.set_yticks(range(1 + max(s.slot for s in stays)))
    axes.grid(visible=False, axis="y")
    figure_style.legend(axes)
    return figure


def hyperparameter(trials: Sequence[TrialSummary], name: str) -> Figure:
    """A hyperparameter against the lowest validation cross-entropy, a dot a trial, the stronger the longer trained."""
    figure, axes = figure_style.axes("", "", figure_style.SMALL)
    best = min(trials, key=lambda t: t.loss)
    known = [t for t in _some(trials, DOTS, best) if name in t.configuration]
    values = [t.configuration[name] for t in known]
    losses = [t.loss for t in known]
    if all(numeric(v) for v in values):
        xs = [float(v) for v in values]
        if min(xs) > 0 and max(xs) / min(xs) > 8:
            figure_style.logarithmic(axes.xaxis, xs, 4)
        else:
            axes.locator_params(axis="x", nbins=4)
            figure_style.integers(axes.xaxis, xs)
    else:
        words = sorted({str(v) for v in values})
        xs = [words.index(str(v)) + 0.25 * np.sin(7.0 * i) for i, v in enumerate(values)]  # apart, the same each time
        axes.set_xticks(range(len(words)), [figure_style.short(w, 11) for w in words])
        if len(words) > CHOICES:
            axes.set_xticks([])
    far = max(t.stopped for t in known)
    for level in (0.25, 0.5, 0.85):
        own = [i for i, t in enumerate(known) if _level(t.stopped / far) == level]
        axes.plot([xs[i] for i in own], [losses[i] for i in own], "o", color=BLUE, alpha=level, markersize=3)
    if best in known:
        place = known.index(best)
        axes.plot([xs[place]], [losses[place]], "o", color=ORANGE, markersize=5)
    figure_style.logarithmic(axes.yaxis, losses, 5)
    return figure


def library(
    members: Sequence[Member], costs: Mapping[str, float], ensembles: Sequence[Ensemble], kind: str, unit: str
) -> Figure:
    """Validation cross-entropy against cost: every measured network, and the ensembles among them."""
    figure, axes = figure_style.axes(f"cost ({unit})", "validation cross-entropy")
    measured = _some([m for m in members if m.id in costs], DOTS * 3, None)
    xs = [costs[m.id] for m in measured]
    ys = [m.losses["valid_cross_entropy"] for m in measured]
    axes.plot(xs, ys, "o", markersize=3.5, color=BLUE, alpha=0.55, label="networks")
    shown = [e for e in ensembles if "valid_cross_entropy" in e.losses]
    if shown:
        points = [(e.cost[kind], e.losses["valid_cross_entropy"]) for e in shown]
        axes.plot(*zip(*points, strict=True), color=ORANGE, marker="o", markersize=4, linewidth=1.4, label="ensembles")
        xs, ys = xs + [x for x, _ in points], ys + [y for _, y in points]
    figure_style.logarithmic(axes.xaxis, xs)
    figure_style.logarithmic(axes.yaxis, ys)
    figure_style.legend(axes)
    return figure


def diversity(members: Sequence[Member], differ: Mapping[str, float], chosen: frozenset[str]) -> Figure:
    """Validation cross-entropy against disagreement with the other members; those of the front stand out."""
    figure, axes = figure_style.axes("answers otherwise than another member (%)", "validation cross-entropy")
    drawn = _some(members, DOTS * 3, None)
    groups = (("members", BLUE, 0.55, False), ("in an ensemble of the front", GREEN, 0.95, True))
    for label, colour, alpha, inside in groups:
        own = [m for m in drawn if (m.id in chosen) == inside]
        if own:
            xs = [100 * differ[m.id] for m in own]
            ys = [m.losses["valid_cross_entropy"] for m in own]
            axes.plot(xs, ys, "o", color=colour, alpha=alpha, markersize=3.5, label=label)
    figure_style.logarithmic(axes.yaxis, [m.losses["valid_cross_entropy"] for m in drawn])
    figure_style.legend(axes)
    return figure


def _level(share: float) -> float:
    return 0.25 if share < 0.2 else 0.5 if share < 0.7 else 0.85


def _some(items: Sequence[T], most: int, always: T | None) -> list[T]:
    """At most about `most` of the items, evenly, with the one that must be there."""
    places = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    found = [items[i] for i in places]
    return found if always is None or always in found else [*found, always]
