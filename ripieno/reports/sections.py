"""Sections of a report: their plots, order and texts."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from ripieno.allocation.explain import Explanation, explain_from
from ripieno.allocation.memory import format_bytes
from ripieno.errors import AllocationError
from ripieno.reports import csv_tables, plots
from ripieno.reports.cell_plot import draw_cells
from ripieno.reports.column_quality import ColumnQuality
from ripieno.reports.explorer import Explorer, has_classes
from ripieno.reports.figure_style import short
from ripieno.reports.figures import Figures
from ripieno.reports.front_history import read_front_history
from ripieno.reports.mask_quality import MaskQuality
from ripieno.reports.payload import places
from ripieno.reports.plot_files import PlotFile, PlotWriter
from ripieno.reports.policy_returns import PolicyPlots, draw_policies
from ripieno.reports.predictions import draw_predictions, read_predictions
from ripieno.reports.run_data import RunData
from ripieno.reports.search import (
    Promotion,
    SlotInterval,
    TrialSummary,
    best_trials_loss,
    promotions,
    rungs,
    slot_intervals,
    trend,
    trials,
    utilisation,
    varying_hyperparameters,
)
from ripieno.reports.series_lines import without_padding
from ripieno.reports.task_tables import ROWS, Row, error_by_decile
from ripieno.reports.uncertainty import draw_uncertainty
from ripieno.search.predictions import StepCorrelation
from ripieno.search.progress import TOP, describe_top
from ripieno.tasks.cascade_effect import describe_effect
from ripieno.tasks.registry import kind_of
from ripieno.types import DISABLED, Allocation, Ensemble, LiveFront, ProgressFunction, TrainingUnit, training_unit

HYPERPARAMETERS = 24
"""Maximum number of plots of hyperparameters: those with the strongest rank correlation with the loss."""
NAMES_SHOWN = 24
"""Maximum number of labels or targets that are drawn."""
SLICED = 9
"""Maximum number of columns whose losses are drawn by value, the most important."""
ALLOCATIONS = 6
"""Maximum number of plots of allocations."""


@dataclass
class Sections:
    """Plots by section, and the tables without a plot."""

    trials: int
    slots: int
    search: list[PlotFile] = field(default_factory=list)
    predictions: list[PlotFile] = field(default_factory=list)
    """of the sampler against the results; empty where it predicts nothing"""
    correlations: tuple[StepCorrelation, ...] = ()
    """of these, by step"""
    hyperparameters: list[PlotFile] = field(default_factory=list)
    library: list[PlotFile] = field(default_factory=list)
    front: list[PlotFile] = field(default_factory=list)
    policies: PolicyPlots = field(default_factory=PolicyPlots)
    """returns of ensembles and an episode; empty for other tasks"""
    uncertainty: list[PlotFile] = field(default_factory=list)
    """calibration, and the error of what is answered"""
    task: list[PlotFile] = field(default_factory=list)
    """residuals and errors by decile, scores by label, or IoU by class of masks; empty for classes of samples"""
    task_rows: list[Row] = field(default_factory=list)
    """figures of each label, target or class of masks; empty for classes of samples"""
    columns: list[PlotFile] = field(default_factory=list)
    """of a table: importance of its columns, and losses by their values"""
    paper: list[PlotFile] = field(default_factory=list)
    allocations: list[tuple[Allocation, PlotFile]] = field(default_factory=list)
    serving: list[PlotFile] = field(default_factory=list)
    tables: list[tuple[str, str]] = field(default_factory=list)
    """(name, address) of all CSV files"""


def draw(
    folder: PlotWriter,
    reading: RunData,
    explored: Explorer | None,
    quality: ColumnQuality | None,
    found: Figures | None,
    differ: Mapping[str, float],
    chosen: frozenset[str],
    progress: ProgressFunction,
) -> Sections:
    """Draw all plots, write all files, and return the sections."""
    tried = trials(reading.members)
    names = varying_hyperparameters(tried)[:HYPERPARAMETERS]
    steps, done = 5 + len(names), 0

    def step() -> None:
        nonlocal done
        progress("drawing", done, steps)
        done += 1

    step()
    intervals = slot_intervals(reading.members)
    promoted = promotions(reading.library.journal_path)
    csv_tables.write_search(folder, tried, rungs(tried), intervals, promoted)
    csv_tables.write_members(folder, reading, differ)
    csv_tables.write_ensembles(folder, "ensembles", reading.ensembles, reading)
    search = _search(folder, tried, intervals, promoted, reading.loss, training_unit(reading.members))
    search += draw_live_front(folder, read_front_history(reading.library.journal_path), reading.loss)
    checks = read_predictions(reading.library.journal_path)
    predictions = draw_predictions(folder, checks, reading.members, reading.loss)
    hyperparameters = []
    for name in names:
        step()
        hyperparameters.append(_hyperparameter(folder, tried, name))
    step()
    library = _library(folder, reading, explored, differ, chosen)
    step()
    front = _front(folder, reading, explored) if explored else []
    policies = draw_policies(folder, reading) if kind_of(reading.task).has_returns else PolicyPlots()
    uncertainty = draw_uncertainty(folder, reading, explored) if explored else []
    task_plots, task_rows = _task(folder, reading, explored) if explored else ([], [])
    columns = _columns(folder, reading, quality) if quality else []
    paper = _paper(folder, reading, found) if found else []
    step()
    allocations = [(a, _allocation(folder, reading, a)) for a in reading.allocations[:ALLOCATIONS]]
    timed = [a for a in reading.allocations if a.throughput or a.predicted]
    serving = [_speed(folder, timed[:ALLOCATIONS])] if timed else []
    progress("drawing", steps, steps)
    slots = 1 + max((s.slot for s in intervals), default=-1)
    return Sections(
        trials=len(tried),
        slots=slots,
        search=search,
        predictions=predictions,
        correlations=checks.correlations(),
        hyperparameters=hyperparameters,
        library=library,
        front=front,
        policies=policies,
        uncertainty=uncertainty,
        task=task_plots,
        task_rows=task_rows,
        columns=columns,
        paper=paper,
        allocations=allocations,
        serving=serving,
        tables=folder.tables(),
    )


def _search(
    folder: PlotWriter,
    tried: Sequence[TrialSummary],
    jobs: Sequence[SlotInterval],
    promoted: Sequence[Promotion],
    loss: str,
    unit: TrainingUnit,
) -> list[PlotFile]:
    if not tried:
        return []
    best, one = min(tried, key=lambda t: t.loss), unit.removesuffix("s")
    top = min(TOP, len(tried))
    made = [
        folder.plot(
            "learning-curves", f"Loss by {one}", plots.learning_curves(tried, loss, unit),
            f"Learning curves of {len(tried)} trials; the best, trial {best.number}, reaches {best.loss:.4f}; "
            f"the mean of {describe_top(top)} is {best_trials_loss(tried, top):.4f}.",
            "curves", "One line per trial; it ends with a dot at the rung where the trial stopped. The lowest loss is "
            f"{best.loss:.4f}; the mean of {describe_top(top)} is {best_trials_loss(tried, top):.4f}."
            + (f" {plots.CURVES} of {len(tried)} are drawn." if len(tried) > plots.CURVES else ""),
        ),
        folder.plot(
            "rungs", "Trials by rung", plots.halving(rungs(tried), unit),
            "; ".join(f"{n} trials reached {one} {epoch}, {stopped} stopped" for epoch, n, stopped in rungs(tried)),
            "rungs", "Trials that reached each rung, and those that were promoted from it." + _ranks(promoted, one),
        ),
    ]  # fmt: skip
    if jobs and max(s.end for s in jobs) > 0:
        made.append(
            folder.plot(
                "slots", "Busy slots over time", plots.slots(jobs, unit),
                f"{len(jobs)} jobs in {1 + max(s.slot for s in jobs)} slots, busy {utilisation(jobs):.0%} of the time.",
                "slots", f"Busy {utilisation(jobs):.0%} of the time. One bar per job, darker with more {unit}."
                if len(jobs) <= plots.BARS else f"Busy {utilisation(jobs):.0%} of the time.",
            )
        )  # fmt: skip
    return made


def draw_live_front(folder: PlotWriter, fronts: Sequence[LiveFront], loss: str) -> list[PlotFile]:
    """Draw the course of the front of ensembles; nothing of a search without one.

    Fronts that do not compare with the last one, of another kind of cost, are left out.
    """
    fronts = [front for front in fronts if front.reference == fronts[-1].reference]
    if not fronts:
        return []
    csv_tables.write_front_history(folder, fronts)
    first, last = fronts[0], fronts[-1]
    unit = {"flops": "FLOPs for one sample"}.get(last.cost, last.cost)
    best = last.ensembles[-1]
    return [
        folder.plot(
            "hypervolume", "Hypervolume of ensembles", plots.hypervolume_history(fronts),
            f"The hypervolume of the best ensembles grew from {first.hypervolume:.3f} with {first.members} members to "
            f"{last.hypervolume:.3f} with {last.members}.",
            "hypervolume", f"From {first.hypervolume:.3f} to {last.hypervolume:.3f}: the share of the area of cost "
            "times loss that the best ensembles dominate, up to the reference point of the first front.",
        ),
        folder.plot(
            "front-history", "Front of ensembles during the search", plots.front_growth(fronts, unit, loss),
            f"The last front has {len(last.ensembles)} ensembles; the best has {len(best.members)} members and the "
            f"loss {best.loss:.4f}.",
            "front-history", "Best ensembles by counted cost, without temperatures. The lowest loss is "
            f"{best.loss:.4f}, of {len(best.members)} members.",
        ),
    ]  # fmt: skip


def _ranks(promoted: Sequence[Promotion], unit: str) -> str:
    """Return why trials were promoted, by rung: ` From epoch 3, ranks up to 4 of up to 13 results then went on.`"""
    by_rung: dict[int, list[Promotion]] = {}
    for promotion in promoted:
        by_rung.setdefault(promotion.start, []).append(promotion)
    return "".join(
        f" From {unit} {start}, ranks up to {max(p.rank for p in rung)} of up to {max(p.ranked for p in rung)} results "
        "then went on."
        for start, rung in sorted(by_rung.items())
    )


def _hyperparameter(folder: PlotWriter, tried: Sequence[TrialSummary], name: str) -> PlotFile:
    slope = trend(tried, name)
    note = "no rank correlation" if slope is None else f"rank correlation {slope:+.2f}".replace("-", "\N{MINUS SIGN}")
    figure = plots.hyperparameter(tried, name)
    file = f"hyperparameter-{_file(name)}"
    return folder.plot(file, name, figure, f"{name} against the lowest loss: {note}.", "trials", note)


def _library(
    folder: PlotWriter, reading: RunData, explored: Explorer | None, differ: Mapping[str, float], chosen: frozenset[str]
) -> list[PlotFile]:
    made = []
    ensembles = [s.ensemble for s in explored.spots] if explored else []
    if reading.costs:
        on = f" on {reading.device}" if reading.device else ""
        once = " An ensemble pays a backbone that its networks share once." if reading.table.shared else ""
        made.append(
            folder.plot(
                "library", "Loss against cost",
                plots.library(reading.members, reading.costs, ensembles, reading.kind, reading.unit, reading.loss),
                f"{len(reading.costs)} members by cost and loss, and the line of the best ensembles.",
                "members", f"{len(reading.costs)} of {len(reading.members)} members have a cost{on}.{once}",
            )
        )  # fmt: skip
    if len(differ) > 1:
        made.append(
            folder.plot(
                "diversity", "Loss against diversity",
                plots.diversity(reading.members, differ, chosen, kind_of(reading.task).diversity_title, reading.loss),
                f"Each member's loss by its {kind_of(reading.task).diversity_title}, the mean over the others.",
                "members", "Members that help an ensemble have a low loss (bottom) and high disagreement (right).",
            )
        )  # fmt: skip
    return made + draw_cells(folder, reading.members, reading.loss)


def _front(folder: PlotWriter, reading: RunData, explored: Explorer) -> list[PlotFile]:
    csv_tables.write_explorer(folder, reading, explored)
    judged = explored.spots[-1].judged
    ensembles = [s.ensemble for s in explored.spots]
    made = [_points(folder, reading, ensembles), *_hardest_series(folder, reading, explored)]
    if judged is None:
        return made
    classes = reading.classes()
    shown = [*(classes[c] for c in explored.shown), *(["others"] if explored.rest else [])]
    return [
        *made,
        folder.plot(
            "confusion", "Confusion of the most expensive", plots.confusion(judged.confusion, shown),
            "Confusion of the most expensive ensemble.", "confusion",
        ),
    ]  # fmt: skip


def _points(folder: PlotWriter, reading: RunData, ensembles: Sequence[Ensemble]) -> PlotFile:
    return folder.plot(
        "front", "Error by budget", plots.front(ensembles, reading.kind, reading.unit, reading.score, reading.metric),
        f"{len(ensembles)} ensembles by cost and error.", "front",
    )  # fmt: skip


def _hardest_series(folder: PlotWriter, reading: RunData, explored: Explorer) -> list[PlotFile]:
    """Draw the hardest series of the most expensive ensemble; nothing for other kinds of data."""
    dataset, hardest = reading.dataset, explored.spots[-1].hardest
    rows = places(explored, dataset) if dataset is not None and dataset.kind == "series" else {}
    if dataset is None or not rows:
        return []
    named = [(s.row, *(short(reading.name_of(one), 16) for one in (s.truth, s.answer))) for s in hardest]
    titles = [f"{row}: {truth}\n\N{RIGHTWARDS ARROW} {answer}" for row, truth, answer in named]
    drawn = [without_padding(np.asarray(dataset.inputs[rows[s.row]])) for s in hardest]
    return [
        folder.plot(
            "hardest-series", "Hardest series of the most expensive",
            plots.series(drawn, titles, [s.truth == s.answer for s in hardest]),
            f"The {len(drawn)} hardest series of the most expensive ensemble.", reading.noun,
            "Above each: its row in the split, its true and its predicted value.",
        )
    ]  # fmt: skip


def _task(folder: PlotWriter, reading: RunData, explored: Explorer) -> tuple[list[PlotFile], list[Row]]:
    """Draw the most expensive ensemble by label or target; nothing for classes, which the explorer shows."""
    if explored.masks is not None:
        return _masks(folder, explored.masks), list(explored.masks.rows)
    if has_classes(reading.task) or explored.predictions is None:
        return [], []
    predictions, targets = explored.predictions, explored.targets
    rows = ROWS[reading.task.kind](predictions, targets, reading.task, explored.spots[-1].ensemble.thresholds)
    folder.table("by-name", tuple(rows[0]), [tuple(row.values()) for row in rows])
    if kind_of(reading.task).activation == "sigmoid":
        shown = rows[:NAMES_SHOWN]
        bars = plots.figures_by_name([str(r["label"]) for r in shown], [float(r["F1"] or 0.0) for r in shown], "F1")
        return [folder.plot("labels", "F1 by label", bars, "F1 of each label.", "by-name")], rows
    made = []
    for number, name in enumerate(reading.task.names[:NAMES_SHOWN]):
        own, true = predictions[:, number], targets[:, number]
        deciles = error_by_decile(own, true)
        columns = ("decile", "least", "largest", "samples", "rmse", "mean_residual")
        folder.table(f"deciles-{number}", columns, [(i, *row) for i, row in enumerate(deciles, 1)])
        drawn = plots.residuals(own, true, name)
        made += [
            folder.plot(
                f"residuals-{number}", f"Residuals of {name}", drawn, f"Predicted minus true {name} by the true value.",
                note=f"{plots.RESIDUALS:,} of {len(true):,} samples are drawn." if len(true) > plots.RESIDUALS else "",
            ),
            folder.plot(
                f"deciles-{number}", f"Error of {name} by decile", plots.error_by_decile(deciles, name),
                f"RMSE and mean residual of {name} in each tenth of the samples, by the true value.",
                f"deciles-{number}",
            ),
        ]  # fmt: skip
    return made, rows


def _masks(folder: PlotWriter, masks: MaskQuality) -> list[PlotFile]:
    """Draw IoU by class, and the errors of masks near boundaries and elsewhere."""
    csv_tables.write_masks(folder, masks)
    shown = [(str(row["class"]), float(row["IoU"])) for row in masks.rows if row["IoU"] is not None][:NAMES_SHOWN]
    made = []
    if shown:
        bars = plots.figures_by_name([name for name, _ in shown], [iou for _, iou in shown], "IoU")
        made.append(folder.plot("classes", "IoU by class", bars, "Intersection over union of each class.", "by-name"))
    known = [one for one in masks.boundaries if one.near and one.far]
    if known:
        drawn = plots.boundary_error(known)
        label = "; ".join(f"{one.near_share:.1%} wrong within {one.distance} pixels" for one in known)
        note = (
            f"{known[0].share_of_wrong or 0:.0%} of the wrong pixels are within {known[0].distance} pixel of a "
            f"boundary of the true mask, {known[-1].share_of_wrong or 0:.0%} within {known[-1].distance}."
        )
        made.append(folder.plot("boundary-error", "Errors near boundaries", drawn, label, "boundary-error", note))
    return made


def _columns(folder: PlotWriter, reading: RunData, quality: ColumnQuality) -> list[PlotFile]:
    """Draw the importance of columns, and the losses by the values of the most important ones."""
    csv_tables.write_columns(folder, quality)
    made = []
    if quality.importances:
        shown = quality.importances.columns[:NAMES_SHOWN]
        first = f"; the most important is {shown[0].name}" if shown else ""
        made.append(
            folder.plot(
                "columns", "Importance of columns", plots.importance(shown, reading.loss),
                f"Increase of the loss by shuffled column{first}.", "columns",
                f"Increase of the {reading.loss} where the values of a column are shuffled, on "
                f"{quality.importances.samples:,} samples.",
            )
        )  # fmt: skip
    for name in quality.ordered[:SLICED]:
        own = [one for one in quality.slices if one.column == name]
        if own:
            drawn = plots.slices(own, quality.loss, reading.loss)
            label = "; ".join(f"{one.values}: {one.loss:.4g}" for one in own)
            made.append(folder.plot(f"slices-{_file(name)}", name, drawn, f"Loss by {name}: {label}.", "slices"))
    return made


def _paper(folder: PlotWriter, reading: RunData, found: Figures) -> list[PlotFile]:
    csv_tables.write_figures(folder, found)
    return [
        folder.plot(
            "error-by-time", "Error by search time (figures 3 and 4)",
            plots.error_by_time(found, reading.metric),
            "Test error by training time, one line per budget.", "error-by-time",
            "Test error of the ensemble for each budget B, selected from the members trained by that time.",
        ),
        folder.plot(
            "smobf-and-forward", "SMOBF and forward selection (figures 5 and 6)",
            plots.smobf_and_forward(found, reading.metric, reading.unit),
            "Cost by test error of SMOBF and of forward selection.", "smobf-and-forward",
            "Each point is an ensemble, labelled with its number of members; bottom left is best.",
        ),
    ]  # fmt: skip


def _allocation(folder: PlotWriter, reading: RunData, allocation: Allocation) -> PlotFile:
    note = "Members on each worker; their shares of time are unknown without profiles."
    source: Explanation | Allocation = allocation
    with contextlib.suppress(AllocationError):  # the run lacks profiles that it needs
        source = explanation = explain_from(reading.library, allocation)
        uses = [f"{d.device} {format_bytes(d.used)} of {format_bytes(d.used + d.left)}" for d in explanation.devices]
        note = f"{explanation.limits.rstrip('.')}. Memory: {', '.join(uses)}."
    name = f"allocation-{_file(allocation.name)}"
    folder.table(
        name,
        ("member", "device", "lane", "batch_size", "share_of_time", "images_per_second"),
        [
            (p.member, p.device, p.lane, p.batch_size, getattr(p, "share", None), getattr(p, "rate", None))
            for p in source.placements
        ],
    )
    workers = len({(p.device, p.lane) for p in allocation.placements})
    label = f"{len(allocation.placements)} placements on {workers} workers of {len(allocation.devices)} devices."
    if (cascade := reading.library.cascade(allocation.ensemble)) and cascade.threshold < DISABLED:
        task = reading.library.member(cascade.order[0]).task
        effects = (f"{describe_effect(effect, task)} ({split})" for split, effect in cascade.effects.items())
        note += f" Early exit {'; '.join(effects)}."
    return folder.plot(name, allocation.name, plots.workers(source), label, name, note)


def _speed(folder: PlotWriter, allocations: Sequence[Allocation]) -> PlotFile:
    columns = ("allocation", "ensemble", "start", "measured", "predicted", "bound", "rate", "latency", "benches")
    folder.table(
        "serving",
        columns,
        [
            (a.name, a.ensemble, a.start_throughput, a.throughput, a.predicted, a.bound, a.rate, a.latency, a.benches)
            for a in allocations
        ],
    )
    label = "; ".join(f"{a.name}: {a.throughput:.0f} samples/s measured" for a in allocations if a.throughput)
    return folder.plot("serving", "Samples per second", plots.throughput(allocations), label, "serving")


def _file(name: str) -> str:
    """Return `name` as a valid file name and address, unique for every name."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
    return clean if clean == name else f"{clean[:80]}-{crc32(name.encode('utf-8', 'replace')):08x}"
