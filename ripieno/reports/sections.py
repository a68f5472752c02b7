"""The parts of a report: which plots there are, in which order, with which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from ripieno.reports import csv_tables, plots, plots_allocation, plots_front
from ripieno.reports.explorer import Explorer
from ripieno.reports.figures import Figures
from ripieno.reports.plot_files import PlotFile, PlotWriter
from ripieno.reports.run_data import RunData
from ripieno.reports.search import (
    TrialSummary,
    rungs,
    slot_intervals,
    trend,
    trials,
    utilisation,
    varying_hyperparameters,
)
from ripieno.types import DISABLED, Allocation, describe_effect

HYPERPARAMETERS = 24
"""Plots of hyperparameters at most, those that go with the loss most closely."""
ALLOCATIONS = 6
"""Pictures of allocations at most."""

Progress = Callable[[str, int, int], None]


@dataclass
class Sections:
    """Plots by section; `best` are static plots of the dearest ensemble, that the page draws itself."""

    trials: int
    slots: int
    use: float
    search: list[PlotFile]
    hyperparameters: list[PlotFile]
    library: list[PlotFile]
    front: list[PlotFile]
    paper: list[PlotFile]
    allocations: list[tuple[Allocation, PlotFile]]
    serving: list[PlotFile]
    tables: list[tuple[str, str]]
    """(name, address) of the CSV files that no plot links to"""


def draw(
    folder: PlotWriter,
    reading: RunData,
    explored: Explorer | None,
    found: Figures | None,
    differ: Mapping[str, float],
    chosen: frozenset[str],
    progress: Progress,
) -> Sections:
    """Draw and write everything."""
    tried = trials(reading.members)
    names = varying_hyperparameters(tried)[:HYPERPARAMETERS]
    steps, done = 5 + len(names), 0

    def step() -> None:
        nonlocal done
        progress("drawing", done, steps)
        done += 1

    step()
    ran = slot_intervals(reading.members)
    csv_tables.write_search(folder, tried, rungs(tried), ran)
    csv_tables.write_members(folder, reading, differ)
    csv_tables.write_ensembles(folder, "ensembles", reading.ensembles, reading.kind)
    made = Sections(
        trials=len(tried),
        slots=1 + max((s.slot for s in ran), default=-1),
        use=utilisation(ran),
        search=_search(folder, reading, tried),
        hyperparameters=[],
        library=[],
        front=[],
        paper=[],
        allocations=[],
        serving=[],
        tables=[],
    )
    for name in names:
        step()
        made.hyperparameters.append(_hyperparameter(folder, tried, name))
    step()
    made.library = _library(folder, reading, explored, differ, chosen)
    step()
    if explored is not None:
        csv_tables.write_explorer(folder, reading, explored)
        made.front = _front(folder, reading, explored)
    if found is not None:
        csv_tables.write_figures(folder, found)
        made.paper = _paper(folder, reading, found)
    step()
    made.allocations = [(a, _allocation(folder, reading, a)) for a in reading.allocations[:ALLOCATIONS]]
    timed = [a for a in reading.allocations if a.throughput or a.predicted]
    if timed:
        made.serving = [_speed(folder, timed[:ALLOCATIONS])]
    made.tables = folder.tables()
    progress("drawing", steps, steps)
    return made


def _search(folder: PlotWriter, reading: RunData, tried: Sequence[TrialSummary]) -> list[PlotFile]:
    if not tried:
        return []
    best = min(tried, key=lambda t: t.loss)
    made = [
        folder.plot(
            "learning-curves", "Loss by epoch", plots.learning_curves(tried),
            f"Learning curves of {len(tried)} trials; the best, trial {best.number}, ends at {best.loss:.4f}.",
            "curves", "A line a trial; it ends with a dot at the rung where it was stopped."
            + (f" {plots.CURVES} of {len(tried)} are drawn." if len(tried) > plots.CURVES else ""),
        ),
        folder.plot(
            "rungs", "Who went on", plots.halving(rungs(tried)),
            "; ".join(f"{came} trials came to epoch {at}, {stopped} stopped" for at, came, stopped in rungs(tried)),
            "rungs", "Trials that came to each rung, and how many of them were promoted from it.",
        ),
    ]  # fmt: skip
    ran = slot_intervals(reading.members)
    if ran and max(s.end for s in ran) > 0:
        made.append(
            folder.plot(
                "slots", "Slots busy over time", plots.slots(ran),
                f"{len(ran)} jobs in {1 + max(s.slot for s in ran)} slots, busy {utilisation(ran):.0%} of the time.",
                "slots", f"Busy {utilisation(ran):.0%} of the time. A bar a job, the darker the more epochs."
                if len(ran) <= plots.BARS else f"Busy {utilisation(ran):.0%} of the time.",
            )
        )  # fmt: skip
    return made


def _hyperparameter(folder: PlotWriter, tried: Sequence[TrialSummary], name: str) -> PlotFile:
    slope = trend(tried, name)
    words = "no order" if slope is None else f"rank correlation {slope:+.2f}".replace("-", "\N{MINUS SIGN}")
    figure = plots.hyperparameter(tried, name)
    file = f"hyperparameter-{_file(name)}"
    return folder.plot(file, name, figure, f"{name} against the lowest loss: {words}.", "trials", words)


def _library(
    folder: PlotWriter,
    reading: RunData,
    explored: Explorer | None,
    differ: Mapping[str, float],
    chosen: frozenset[str],
) -> list[PlotFile]:
    made = []
    ensembles = [s.ensemble for s in explored.spots] if explored else []
    if reading.costs:
        on = f" on {reading.device}" if reading.device else ""
        made.append(
            folder.plot(
                "library", "Loss against cost",
                plots.library(reading.members, reading.costs, ensembles, reading.kind, reading.unit),
                f"{len(reading.costs)} networks by cost and loss; below them the line of the best ensembles.",
                "members", f"{len(reading.costs)} of {len(reading.members)} networks have a cost{on}.",
            )
        )  # fmt: skip
    if len(differ) > 1:
        made.append(
            folder.plot(
                "diversity", "Loss against diversity", plots.diversity(reading.members, differ, chosen),
                "Each member's loss by the share of samples that it answers otherwise than another member.",
                "members", "What helps an ensemble is low, for its loss, and to the right, for its difference.",
            )
        )  # fmt: skip
    return made


def _front(folder: PlotWriter, reading: RunData, explored: Explorer) -> list[PlotFile]:
    best = explored.spots[-1]
    classes = reading.classes()
    shown = [*(classes[c] for c in explored.shown), *(["others"] if explored.rest else [])]
    ensembles = [s.ensemble for s in explored.spots]
    return [
        folder.plot(
            "front", "Error by budget",
            plots_front.front(ensembles, reading.kind, reading.unit, reading.score, reading.metric),
            f"{len(ensembles)} ensembles by cost and error.", "front",
        ),
        folder.plot(
            "confusion", "Confusion of the dearest", plots_front.confusion(best.judged.confusion, shown),
            "Confusion of the dearest ensemble.", "confusion",
        ),
        folder.plot(
            "reliability", "Reliability of the dearest", plots_front.reliability(best.judged.bins),
            f"Reliability of the dearest ensemble; its expected calibration error is {best.judged.error:.3f}.",
            "reliability",
        ),
    ]  # fmt: skip


def _paper(folder: PlotWriter, reading: RunData, found: Figures) -> list[PlotFile]:
    return [
        folder.plot(
            "error-by-time", "What search time buys (figures 3 and 4)",
            plots_front.error_by_time(found, reading.metric),
            "Test error by training time, a line a budget.", "error-by-time",
            "Test error of the ensemble for each budget B, chosen from the members there were by then.",
        ),
        folder.plot(
            "smobf-and-forward", "SMOBF and the plain greedy (figures 5 and 6)",
            plots_front.smobf_and_forward(found, reading.metric, reading.unit),
            "Cost by test error of SMOBF and of forward selection.", "smobf-and-forward",
            "Each point is an ensemble, # its members; left and low is best.",
        ),
    ]  # fmt: skip


def _allocation(folder: PlotWriter, reading: RunData, allocation: Allocation) -> PlotFile:
    found = plots_allocation.explain_or_none(reading.library, allocation)
    seats = found.seats if found else ()
    name = f"allocation-{_file(allocation.name)}"
    folder.table(
        name,
        ("member", "device", "lane", "batch_size", "share_of_time", "images_per_second"),
        [
            (p.member, p.device, p.lane, p.batch_size, *((s.share, s.rate) if s else (None, None)))
            for p, s in zip(allocation.placements, seats or [None] * len(allocation.placements), strict=True)
        ],
    )
    lanes = len({(p.device, p.lane) for p in allocation.placements})
    label = f"{len(allocation.placements)} placements in {lanes} lanes of {len(allocation.devices)} devices."
    note = plots_allocation.in_words(found) if found else "Who shares which lane; without profiles, not for how long."
    if (turns := reading.library.cascade(allocation.ensemble)) and turns.threshold < DISABLED:
        said = (f"{describe_effect(effect)} ({split})" for split, effect in turns.effects.items())
        note += f" Asking members in turn {'; '.join(said)}."
    return folder.plot(name, allocation.name, plots_allocation.picture(allocation, seats), label, name, note)


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
    label = "; ".join(f"{a.name}: {a.throughput:.0f} images a second measured" for a in allocations if a.throughput)
    return folder.plot("serving", "Images a second", plots_allocation.speed(allocations), label, "serving")


def _file(name: str) -> str:
    """`name` as a file may be called and an address may hold it; another one for every name."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
    return clean if clean == name else f"{clean[:80]}-{crc32(name.encode('utf-8', 'replace')):08x}"
