"""Plots of a report. Each function returns a figure; call it within `figure_style.style()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ripieno.allocation.explain import Explanation
from ripieno.reports import figure_style
from ripieno.reports.allocation_rows import bar_lengths, rows_by_worker, time_text
from ripieno.reports.column_importance import ColumnImportance
from ripieno.reports.column_slices import ColumnSlice
from ripieno.reports.figure_style import BLUE, GREEN, INK, ORANGE, TEXT
from ripieno.reports.figures import Figures
from ripieno.reports.mask_quality import BoundaryError
from ripieno.reports.run_data import evenly_spaced
from ripieno.reports.search import SlotInterval, TrialSummary, busy, numeric
from ripieno.reports.series_lines import CHANNELS, envelope
from ripieno.tasks.calibration_error import CalibrationBin
from ripieno.tasks.metrics import METRICS
from ripieno.types import Allocation, Ensemble, LiveFront, Member, TrainingUnit, ranking_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

CURVES = 150
"""Maximum number of learning curves: the best trial and an even selection of the rest."""
BARS = 300
"""Maximum number of jobs drawn one by one; more are drawn as a sum."""
DOTS = 300
"""Maximum number of dots of one plot."""
FRONTS = 4
"""Maximum number of fronts of one plot: the first, the last and some between them."""
CHOICES = 8
"""Maximum number of labelled categories on one axis."""
RESIDUALS = 2000
"""Maximum number of samples in a plot of residuals."""
SERIES_COLUMNS, SERIES_SIZE = 3, (1.5, 1.25)
"""Series in a row of a plot, and inches of each."""
MAX_WORKERS = 64
"""Maximum number of workers drawn."""


def learning_curves(trials: Sequence[TrialSummary], loss: str, unit: TrainingUnit = "epochs") -> Figure:
    """Plot the validation loss against `unit`, a line per trial with a dot at its end; highlight the best."""
    axes = figure_style.axes(unit.removesuffix("s"), f"validation {loss}")
    best = min(trials, key=lambda t: t.loss, default=None)
    stops = sorted({t.stopped for t in trials})
    drawn = _some(trials, CURVES, best)
    for trial in drawn:
        epochs = [e.epoch for e in trial.curve]
        losses = [e.valid_loss for e in trial.curve]
        far = (1 + stops.index(trial.stopped)) / len(stops)
        look: dict[str, Any] = {"color": BLUE, "alpha": round(0.15 + 0.5 * far, 2), "linewidth": 0.6 + 0.8 * far}
        if trial is best:
            look = {"color": ORANGE, "linewidth": 2.2, "zorder": 4, "label": f"best: trial {trial.number}"}
        axes.plot(epochs, losses, **look)
    ends = [(t.curve[-1].epoch, t.curve[-1].valid_loss) for t in drawn]
    if ends:
        axes.plot(*zip(*ends, strict=True), "o", color=BLUE, markersize=2.5, alpha=0.8, label="stopped here")
    figure_style.logarithmic(axes.yaxis, [e.valid_loss for t in drawn for e in t.curve])
    figure_style.logarithmic(axes.xaxis, [e.epoch for t in drawn for e in t.curve])
    return figure_style.finish(axes)


def halving(rungs: Sequence[tuple[int, int, int]], unit: TrainingUnit = "epochs") -> Figure:
    """Plot the number of trials that reached each rung, and that of trials promoted from it."""
    axes = figure_style.axes(f"{unit} trained", "trials")
    positions = range(len(rungs))
    promoted = [reached - stopped for _, reached, stopped in rungs]
    axes.bar(positions, [reached for _, reached, _ in rungs], color=BLUE, alpha=0.35, width=0.62, label="stopped")
    axes.bar(positions, promoted, color=ORANGE, alpha=0.9, width=0.62, label="promoted")
    for x, (_, reached, _stopped) in zip(positions, rungs, strict=True):
        axes.annotate(str(reached), (x, reached), (0, 3), "data", "offset points", ha="center", color=INK, fontsize=8)
    axes.set_xticks(list(positions), [str(epoch) for epoch, *_ in rungs])
    axes.margins(y=0.12)
    figure_style.integers(axes.yaxis, [0])
    return figure_style.finish(axes)


def slots(intervals: Sequence[SlotInterval], unit: TrainingUnit = "epochs") -> Figure:
    """Plot the jobs of each slot over time; with many jobs, the number of busy slots."""
    hours = max(s.end for s in intervals)
    scale, time = (60, "minutes") if hours < 2 else (1, "hours")
    axes = figure_style.axes(f"{time} since the first job", "slot" if len(intervals) <= BARS else "slots busy")
    if len(intervals) > BARS:
        moments, numbers = busy(intervals)
        few = evenly_spaced(len(moments), 600)
        times, counts = [moments[i] * scale for i in few], [numbers[i] for i in few]
        axes.fill_between(times, counts, step="post", color=BLUE, alpha=0.4, linewidth=0)
        figure_style.integers(axes.yaxis, [0])
        return figure_style.finish(axes)
    epochs = sorted({s.epoch for s in intervals})
    for epoch in epochs:
        far = (1 + epochs.index(epoch)) / len(epochs)
        jobs = [s for s in intervals if s.epoch == epoch]
        lengths = [(s.end - s.start) * scale for s in jobs]
        axes.barh(
            [s.slot for s in jobs], lengths, left=[s.start * scale for s in jobs], height=0.7,
            color=BLUE, alpha=round(0.2 + 0.7 * far, 2), linewidth=0,
            label=f"to {unit.removesuffix('s')} {epoch}" if len(epochs) <= 6 else None,
        )  # fmt: skip
    axes.set_yticks(range(1 + max(s.slot for s in intervals)))
    axes.grid(visible=False, axis="y")
    return figure_style.finish(axes)


def hypervolume_history(fronts: Sequence[LiveFront]) -> Figure:
    """Plot the hypervolume of the live front over the time of the search, a step for each front."""
    axes = figure_style.axes(_time_label(fronts), "hypervolume")
    times = [front.seconds / _time_scale(fronts) for front in fronts]
    axes.plot(
        times, [front.hypervolume for front in fronts], color=BLUE, drawstyle="steps-post", marker="o", markersize=3
    )
    axes.set_ylim(0, 1)
    return figure_style.finish(axes)


def front_growth(fronts: Sequence[LiveFront], unit: str, loss: str) -> Figure:
    """Plot the front at some moments of the search, darker the later, and the last one in another colour."""
    axes = figure_style.axes(f"cost ({unit})", f"validation {loss}")
    shown = [fronts[i] for i in evenly_spaced(len(fronts), FRONTS)]
    for number, front in enumerate(shown):
        last = number == len(shown) - 1
        look: dict[str, Any] = {"color": BLUE, "alpha": round(0.2 + 0.6 * number / len(shown), 2), "linewidth": 1.0}
        if last:
            look = {"color": ORANGE, "linewidth": 2.0, "zorder": 4}
        points = [(e.cost, e.loss) for e in front.ensembles]
        axes.plot(
            *zip(*points, strict=True), drawstyle="steps-post", marker="o", markersize=3, **look,
            label=f"of {front.members} members",
        )  # fmt: skip
    figure_style.logarithmic(axes.xaxis, [e.cost for front in shown for e in front.ensembles])
    return figure_style.finish(axes)


def _time_unit(fronts: Sequence[LiveFront]) -> str:
    longest = fronts[-1].seconds
    return "seconds" if longest < 120 else "minutes" if longest < 7200 else "hours"


def _time_scale(fronts: Sequence[LiveFront]) -> float:
    return {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}[_time_unit(fronts)]


def _time_label(fronts: Sequence[LiveFront]) -> str:
    return f"{_time_unit(fronts)} of the search"


def hyperparameter(trials: Sequence[TrialSummary], name: str) -> Figure:
    """Plot the lowest validation loss against a hyperparameter, a dot per trial, darker if trained longer."""
    axes = figure_style.axes("", "", figure_style.SMALL)
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
        choices = sorted({str(v) for v in values})
        xs = [choices.index(str(v)) + 0.25 * np.sin(7.0 * i) for i, v in enumerate(values)]  # deterministic jitter
        axes.set_xticks(range(len(choices)), [figure_style.short(c, 11) for c in choices])
        if len(choices) > CHOICES:
            axes.set_xticks([])
    far = max(t.stopped for t in known)
    for level in (0.25, 0.5, 0.85):
        chosen = [i for i, t in enumerate(known) if _level(t.stopped / far) == level]
        axes.plot([xs[i] for i in chosen], [losses[i] for i in chosen], "o", color=BLUE, alpha=level, markersize=3)
    if best in known:
        index = known.index(best)
        axes.plot([xs[index]], [losses[index]], "o", color=ORANGE, markersize=5)
    figure_style.logarithmic(axes.yaxis, losses, 5)
    return figure_style.finish(axes)


def library(
    members: Sequence[Member],
    costs: Mapping[str, float],
    ensembles: Sequence[Ensemble],
    kind: str,
    unit: str,
    loss: str,
) -> Figure:
    """Plot the validation loss against cost: every measured network, and the ensembles."""
    axes = figure_style.axes(f"cost ({unit})", f"validation {loss}")
    measured = _some([m for m in members if m.id in costs], DOTS * 3, None)
    xs = [costs[m.id] for m in measured]
    ys = [m.loss for m in measured]
    axes.plot(xs, ys, "o", markersize=3.5, color=BLUE, alpha=0.55, label="members")
    points = [(e.cost[kind], value) for e in ensembles if (value := ranking_loss(e.losses)) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), color=ORANGE, marker="o", markersize=4, linewidth=1.4, label="ensembles")
        xs, ys = xs + [x for x, _ in points], ys + [y for _, y in points]
    figure_style.logarithmic(axes.xaxis, xs)
    figure_style.logarithmic(axes.yaxis, ys)
    return figure_style.finish(axes)


def diversity(
    members: Sequence[Member], differ: Mapping[str, float], chosen: frozenset[str], difference: str, loss: str
) -> Figure:
    """Plot the validation loss against `difference`, that of the other members; highlight members of the front."""
    axes = figure_style.axes(f"{difference} (%)", f"validation {loss}")
    drawn = _some(members, DOTS * 3, None)
    groups = (("members", BLUE, 0.55, False), ("in an ensemble of the front", GREEN, 0.95, True))
    for label, colour, alpha, inside in groups:
        group = [m for m in drawn if (m.id in chosen) == inside]
        if group:
            xs = [100 * differ[m.id] for m in group]
            ys = [m.loss for m in group]
            axes.plot(xs, ys, "o", color=colour, alpha=alpha, markersize=3.5, label=label)
    figure_style.logarithmic(axes.yaxis, [m.loss for m in drawn])
    return figure_style.finish(axes)


def front(ensembles: Sequence[Ensemble], kind: str, unit: str, score: str, metric: str) -> Figure:
    """Plot the error of the front's ensembles against their cost, on validation and test samples.

    The error is 100 less a score in percent, else the score itself.
    """
    shares = METRICS[score].in_percent
    axes = figure_style.axes(f"cost ({unit})", f"error: 100 - {metric} (%)" if shares else metric)
    for split, colour, marker in (("valid", BLUE, "s"), ("test", ORANGE, "o")):
        key = f"{split}_{score}"
        points = [
            (e.cost[kind], 100 - 100 * e.losses[key] if shares else e.losses[key]) for e in ensembles if key in e.losses
        ]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=split)
    figure_style.logarithmic(axes.xaxis, [e.cost[kind] for e in ensembles])
    return figure_style.finish(axes)


def error_by_time(found: Figures, metric: str) -> Figure:
    """Plot figures 3 and 4: test error against the training time of the search, a line per budget."""
    hours = max(found.hours)
    scale, unit = (60, "minutes") if hours < 2 else (1, "hours")
    axes = figure_style.axes(f"training {unit}, all slots together", f"test error: 100 - {metric} (%)")
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
    return figure_style.finish(axes)


def smobf_and_forward(found: Figures, metric: str, unit: str) -> Figure:
    """Plot figures 5 and 6: cost against test error of SMOBF (a point per budget) and forward (a point per size)."""
    axes = figure_style.axes(f"test error: 100 - {metric} (%)", f"cost ({unit})")
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
    return figure_style.finish(axes)


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Figure:
    """Plot true class (rows) by predicted class (columns): shares of the row as colour, counts as text."""
    axes = figure_style.axes("predicted class", "true class", (5.4, 5.0))
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
    return figure_style.finish(axes)


def series(drawn: Sequence[NDArray[Any]], titles: Sequence[str], right: Sequence[bool]) -> Figure:
    """Plot series (points, channels) side by side, each under its title, in orange where it is not `right`."""
    axes = figure_style.grid(len(drawn), SERIES_COLUMNS, SERIES_SIZE)
    for one, values, title, correct in zip(axes, drawn, titles, right, strict=True):
        for channel in values[:, :CHANNELS].T:
            one.plot(*envelope(channel), color=BLUE, linewidth=0.9, alpha=0.8)
        one.set_title(title, color=INK if correct else ORANGE, fontsize=6.5)
    return figure_style.finish(axes[0])


def boundary_error(errors: Sequence[BoundaryError]) -> Figure:
    """Plot the share of wrong pixels within a distance of a boundary of the true mask, and elsewhere."""
    axes = figure_style.axes("pixels from a boundary", "wrong pixels (%)")
    for label, colour, marker, shares in (
        ("within", ORANGE, "o", [one.near_share for one in errors]),
        ("elsewhere", BLUE, "s", [one.far_share for one in errors]),
    ):
        heights = [100 * share for share in shares if share is not None]
        axes.plot(range(len(heights)), heights, color=colour, marker=marker, markersize=4, label=label)
    axes.set_xticks(range(len(errors)), [str(one.distance) for one in errors])
    axes.set_ylim(bottom=0)
    return figure_style.finish(axes)


def reliability(bins: Sequence[CalibrationBin]) -> Figure:
    """Plot the share of correct answers by confidence, a bar a bin of equal mass; the diagonal is perfect."""
    axes = figure_style.axes("confidence", "share correct", (4.0, 3.6))
    widths = [b.high - b.low for b in bins]
    look: dict[str, Any] = {"color": BLUE, "alpha": 0.5, "edgecolor": INK, "linewidth": 0.4}
    axes.bar([b.low for b in bins], [b.accuracy for b in bins], widths, align="edge", **look)
    axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o", color=ORANGE, markersize=3)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return figure_style.finish(axes)


def risk_coverage(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]], error: str) -> Figure:
    """Plot the mean error of what is answered against the share of samples that is, a line for each named curve."""
    axes = figure_style.axes("samples answered (%)", f"mean {error} of the answers", (4.0, 3.6))
    for (name, points), colour in zip(curves, (ORANGE, BLUE, GREEN), strict=False):
        axes.plot([100 * share for share, _ in points], [risk for _, risk in points], color=colour, label=name)
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    return figure_style.finish(axes)


def residuals(predictions: NDArray[Any], targets: NDArray[Any], name: str) -> Figure:
    """Plot predicted minus true value against the true value of one target, (samples,), a dot per sample."""
    axes = figure_style.axes(f"true {name}", "predicted - true")
    rows = evenly_spaced(len(targets), RESIDUALS)
    axes.plot(targets[rows], (predictions - targets)[rows], "o", color=BLUE, markersize=2.5, alpha=0.5)
    axes.axhline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    return figure_style.finish(axes)


def error_by_decile(rows: Sequence[tuple[float, float, int, float, float]], name: str) -> Figure:
    """Plot the RMSE and the mean residual of each decile of a target; rows as of `task_tables.error_by_decile`."""
    axes = figure_style.axes(f"decile of {name}", f"error of {name}")
    places = range(1, len(rows) + 1)
    axes.bar(places, [row[3] for row in rows], color=BLUE, alpha=0.5, width=0.7, label="RMSE")
    axes.plot(places, [row[4] for row in rows], "o", color=ORANGE, markersize=4, label="mean of predicted - true")
    axes.set_xticks(list(places))
    return figure_style.finish(axes)


def figures_by_name(names: Sequence[str], values: Sequence[float], title: str) -> Figure:
    """Plot one figure of 0..1 per name, as bars."""
    axes = figure_style.axes(title, "", (figure_style.WIDE[0], 0.8 + 0.24 * len(names)))
    axes.barh(range(len(names)), values, height=0.7, color=BLUE, alpha=0.6)
    axes.set_yticks(range(len(names)), [figure_style.short(name, 18) for name in names])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure_style.finish(axes)


def importance(columns: Sequence[ColumnImportance], loss: str) -> Figure:
    """Plot the importance of columns as bars, with the range of its measurements."""
    axes = figure_style.axes(f"increase of {loss}", "", (figure_style.WIDE[0], 0.8 + 0.24 * len(columns)))
    spreads = [one.spread for one in columns]
    increases = [one.increase for one in columns]
    axes.barh(range(len(columns)), increases, 0.7, color=BLUE, alpha=0.6, xerr=spreads, ecolor=INK)
    axes.set_yticks(range(len(columns)), [figure_style.short(one.name, 18) for one in columns])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure_style.finish(axes)


def slices(rows: Sequence[ColumnSlice], mean: float, loss: str) -> Figure:
    """Plot the loss of the slices of one column as bars, in orange above the `mean` of all samples."""
    axes = figure_style.axes(loss, "", (figure_style.WIDE[0], 0.8 + 0.24 * len(rows)))
    colours = [ORANGE if one.loss > mean else BLUE for one in rows]
    axes.barh(range(len(rows)), [one.loss for one in rows], 0.7, color=colours, alpha=0.6)
    axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [figure_style.short(one.values, 24) for one in rows])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure_style.finish(axes)


def workers(source: Explanation | Allocation) -> Figure:
    """Plot a bar per worker with a segment per placement: its share of the worker's time; equal if unknown."""
    bars = dict(islice(rows_by_worker(source).items(), MAX_WORKERS))
    known = any(time_text(rows) for rows in bars.values())
    size = figure_style.WIDE[0], 0.8 + 0.4 * len(bars)
    axes = figure_style.axes("share of the worker's time (%)" if known else "", "", size)
    for position, rows in enumerate(bars.values()):
        left = 0.0
        for row, length in zip(rows, bar_lengths(rows), strict=True):
            width = 100 * length
            look: dict[str, Any] = {"color": row.colour, "alpha": 0.4, "edgecolor": INK, "linewidth": 0.4}
            axes.barh([position], [width], left=[left], height=0.72, **look)
            separator = " " if width > 26 else "\n"
            if width > 15:
                text = f"{figure_style.short(row.member, 12)}{separator}×{row.batch}"
                axes.text(left + width / 2, position, text, ha="center", va="center", fontsize=7, color=TEXT)
            left += width
    axes.set_yticks(range(len(bars)), [f"{figure_style.short(device, 12)} worker {number}" for device, number in bars])
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    if not known:
        axes.set_xticks([])
    return figure_style.finish(axes)


def throughput(allocations: Sequence[Allocation]) -> Figure:
    """Plot samples/s of each allocation: at the start, measured, predicted, and the upper bound."""
    axes = figure_style.axes("samples/s", "", (figure_style.WIDE[0], 1.1 + 0.6 * len(allocations)))
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
    return figure_style.finish(axes)


def _level(share: float) -> float:
    return 0.25 if share < 0.2 else 0.5 if share < 0.7 else 0.85


def _some(items: Sequence[T], most: int, always: T | None) -> list[T]:
    """Return at most about `most` of the items, evenly spaced, and `always`."""
    selected = [items[i] for i in evenly_spaced(len(items), most)]
    return selected if always is None or always in selected else [*selected, always]
