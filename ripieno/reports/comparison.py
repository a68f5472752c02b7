"""Comparison of runs: its record, and its tables, CSV file and page."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from ripieno.errors import require
from ripieno.reports import comparison_plots, figure_style
from ripieno.reports.page_assets import page_asset
from ripieno.reports.plot_files import CsvValue, PlotFile, escape_formula
from ripieno.reports.run_data import UNITS
from ripieno.tasks.display import format_metric
from ripieno.tasks.metrics import METRICS
from ripieno.types import Value


@dataclass(frozen=True)
class ComparedEnsemble:
    """Ensemble of a run, the best within a budget."""

    name: str
    members: int
    cost: float
    loss: float
    """the metric by which members are ranked, on the validation samples"""
    expected_loss: float | None
    """see `Ensemble.expected_loss`"""
    test_score: float | None
    """on the test split; None: not evaluated"""


@dataclass(frozen=True)
class ComparedRun:
    """Figures of one run; losses and scores are of validation samples."""

    name: str
    """end of its path, without what all runs end in, and as short as it is unique"""
    path: Path
    best: str
    """id of the member with the lowest loss"""
    loss: float
    """of that member"""
    score: float | None
    """of that member"""
    top_loss: float | None
    """mean of the ten best trials, or of all where there are fewer, each at its lowest loss; None without trials"""
    members: int
    trials: int
    """trials with a member"""
    failures: int
    """jobs that failed"""
    seconds: float
    """time of training, of all slots together"""
    cost: float | None
    """of the best member; None: not measured"""
    hypervolume: float | None
    """of `front`, up to the reference of the comparison"""
    curve: tuple[tuple[float, float], ...]
    """seconds of training and the lowest loss by then, at each that lowers it and at the end"""
    front: tuple[tuple[float, float], ...]
    """cost and loss, cheapest first; empty where costs are not compared"""
    ensembles: tuple[ComparedEnsemble | None, ...]
    """the best within each budget of the comparison; None: none costs as little"""


@dataclass(frozen=True)
class Comparison:
    """Runs on the same data, in the order given."""

    runs: tuple[ComparedRun, ...]
    loss: str
    """name of the metric by which members are ranked"""
    score: str
    """name of the score that is shown"""
    cost: str
    """kind of the costs; empty: they are not compared"""
    device: str
    """kind of device that the costs were measured on; empty: they were imported, or are not compared"""
    fronts: str
    """`ensembles`: those that the runs keep are compared; `members`: those of single members; empty: there are none"""
    reference: tuple[float, float] | None
    """cost and loss up to which hypervolumes are counted: a tenth above the highest of all fronts"""
    budgets: tuple[float, ...]
    settings: Mapping[str, tuple[str | None, ...]]
    """settings of search and data that differ, and their value in each run; None: it has none"""
    configurations: Mapping[str, tuple[Value | None, ...]]
    """hyperparameters of the best members that differ, and their value in each run"""
    groups: tuple[tuple[int, ...], ...] = ()
    """indices of the runs by settings without the seed, each run once; empty: no two runs differ in their seed alone"""
    notes: tuple[str, ...] = ()
    """remarks on what is compared"""


@dataclass(frozen=True)
class ComparisonRow:
    """A row of text, and the cells that are best in it."""

    label: str
    cells: tuple[str, ...]
    best: frozenset[int] = frozenset()
    """indices of the best cells; empty where all are equal or none is better"""


@dataclass(frozen=True)
class ComparisonTable:
    """A table with a column for each run, or for each group of runs."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]


def comparison_tables(found: Comparison) -> tuple[ComparisonTable, ...]:
    """Return the tables of a comparison that have rows: figures, ensembles by budget, and what differs."""
    names, groups = tuple(run.name for run in found.runs), found.groups
    figures, ensembles = list(_figures(found)), list(_ensembles(found))
    best = {"id": tuple(run.best for run in found.runs)} if found.configurations else {}
    of_groups = tuple(figure.mean_row(groups) for figure in [*figures, *ensembles] if groups)
    several = tuple(names[group[0]] + (f" and {len(group) - 1} more" if group[1:] else "") for group in groups)
    made = (
        ComparisonTable("runs (on validation samples)", names, tuple(figure.row() for figure in figures)),
        ComparisonTable(f"ensembles by budget ({found.cost})", names, tuple(figure.row() for figure in ensembles)),
        ComparisonTable("mean and standard deviation of runs that differ in their seed", several, of_groups),
        ComparisonTable("settings, where they differ", names, tuple(_texts(found.settings))),
        ComparisonTable("best members, where they differ", names, tuple(_texts({**best, **found.configurations}))),
    )
    return tuple(table for table in made if table.rows)


@dataclass(frozen=True)
class _Figure:
    """A figure of each run; `lower` says whether lower is better, None: neither is."""

    label: str
    values: Sequence[float | None]
    form: Callable[[float], str]
    lower: bool | None = None

    def row(self) -> ComparisonRow:
        """Return a cell for each run."""
        return self._row(self.values, tuple("-" if value is None else self.form(value) for value in self.values))

    def mean_row(self, groups: Sequence[Sequence[int]]) -> ComparisonRow:
        """Return a cell for each group of runs: the mean and the standard deviation, or the figure of a single run."""
        means: list[float | None] = []
        cells = []
        for group in groups:
            known = [value for i in group if (value := self.values[i]) is not None]
            means.append(mean(known) if known else None)
            spread = f" ± {self.form(stdev(known))}" if known[1:] else ""
            cells.append(self.form(mean(known)) + spread if known else "-")
        return self._row(means, tuple(cells))

    def _row(self, values: Sequence[float | None], cells: tuple[str, ...]) -> ComparisonRow:
        known = [value for value in values if value is not None]
        if self.lower is None or len(set(known)) < 2:
            return ComparisonRow(self.label, cells)
        best = min(known) if self.lower else max(known)
        return ComparisonRow(self.label, cells, frozenset(i for i, value in enumerate(values) if value == best))


def _figures(found: Comparison) -> Iterator[_Figure]:
    loss, score = METRICS[found.loss], METRICS[found.score]
    runs, count, digits = found.runs, "{:,.0f}".format, "{:.4g}".format
    yield _Figure(f"lowest {loss.title}", [run.loss for run in runs], loss.format, lower=True)
    if any(run.trials for run in runs):
        yield _Figure("mean of ten best trials", [run.top_loss for run in runs], loss.format, lower=True)
    if found.score != found.loss:
        yield _Figure(score.title, [run.score for run in runs], score.format, lower=not score.higher_is_better)
    yield _Figure("members", [run.members for run in runs], count)
    yield _Figure("trials", [run.trials for run in runs], count)
    if any(run.failures for run in runs):
        yield _Figure("failed jobs", [run.failures for run in runs], count)
    yield _Figure("training seconds", [run.seconds for run in runs], count)
    if found.cost:
        yield _Figure(f"{found.cost} of the best", [run.cost for run in runs], digits)
    if found.reference is not None:
        yield _Figure("hypervolume", [run.hypervolume for run in runs], digits, lower=False)


def _ensembles(found: Comparison) -> Iterator[_Figure]:
    loss, score = METRICS[found.loss], METRICS[found.score]
    for place, budget in enumerate(found.budgets):
        best = [run.ensembles[place] for run in found.runs]
        label = f"{budget:.4g}"
        yield _Figure(f"{label}: {loss.title}", [None if e is None else e.loss for e in best], loss.format, lower=True)
        yield _Figure(f"{label}: members", [None if e is None else e.members for e in best], "{:.3g}".format)
        tested = [None if e is None else e.test_score for e in best]
        if any(value is not None for value in tested):
            lower = not score.higher_is_better
            yield _Figure(f"{label}: test {score.title}", tested, score.format, lower=lower)


def _texts(values: Mapping[str, Sequence[Value | None]]) -> Iterator[ComparisonRow]:
    for name, of_runs in values.items():
        cells = ("-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in of_runs)
        yield ComparisonRow(name, tuple(cells))


def comparison_csv(found: Comparison) -> bytes:
    """Return a comparison as CSV, a row for each run; settings and hyperparameters have columns of their own."""
    columns: dict[str, Sequence[CsvValue]] = {
        "run": [run.name for run in found.runs],
        "path": [str(run.path) for run in found.runs],
        "best_member": [run.best for run in found.runs],
        found.loss: [run.loss for run in found.runs],
        f"top_{found.loss}": [run.top_loss for run in found.runs],
    }
    if found.score != found.loss:
        columns[found.score] = [run.score for run in found.runs]
    for name in ("members", "trials", "failures"):
        columns[name] = [getattr(run, name) for run in found.runs]
    columns["training_seconds"] = [run.seconds for run in found.runs]
    if found.cost:
        columns[f"cost_{found.cost}"] = [run.cost for run in found.runs]
    if found.reference is not None:
        columns["hypervolume"] = [run.hypervolume for run in found.runs]
    for place, budget in enumerate(found.budgets):
        best = [run.ensembles[place] for run in found.runs]
        for name in ("members", "cost", "loss", "test_score"):
            columns[f"budget_{budget:.4g}_{name}"] = [None if e is None else getattr(e, name) for e in best]
    columns |= {f"setting.{name}": values for name, values in found.settings.items()}
    columns |= {f"best.{name}": values for name, values in found.configurations.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([escape_formula(name) for name in columns])
    writer.writerows([[escape_formula(cell) for cell in row] for row in zip(*columns.values(), strict=True)])
    return text.getvalue().encode("utf-8", "replace")


def comparison_page(found: Comparison) -> bytes:
    """Return the page of a comparison, which opens from disk without a network and has no scripts.

    Raises MissingExtraError without the extra `report`.
    """
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    best = min(found.runs, key=lambda run: run.loss)
    page = environment.from_string(page_asset("comparison.html")).render(
        found=found,
        names=[figure_style.plain(run.name) for run in found.runs],
        best=best,
        lowest=format_metric(found.loss, best.loss),
        loss=METRICS[found.loss].title,
        unit=UNITS.get(found.cost, found.cost),
        tables=comparison_tables(found),
        plots=_plots(found),
        style=page_asset("style.css"),
    )
    return str(page).encode("utf-8", "replace")


def _plots(found: Comparison) -> list[PlotFile]:
    loss, names = METRICS[found.loss].title, [run.name for run in found.runs]
    made = []
    with figure_style.style():
        if any(run.curve for run in found.runs):
            drawn = comparison_plots.best_loss_by_time(names, [run.curve for run in found.runs], loss)
            note = "The lowest validation loss of the members trained so far."
            made.append(_plot("curves", "Best loss by training time", drawn, note))
        if found.reference is not None:
            unit = UNITS.get(found.cost, found.cost)
            drawn = comparison_plots.fronts(names, [run.front for run in found.runs], unit, loss)
            of = "the ensembles that the runs keep" if found.fronts == "ensembles" else "single members"
            note = f"The lowest validation loss for each cost, of {of}."
            made.append(_plot("fronts", "Fronts", drawn, note))
    return made


def _plot(name: str, caption: str, figure: comparison_plots.Figure, note: str) -> PlotFile:
    return PlotFile(name, caption, figure_style.on_page(figure_style.svg(figure), name, caption), (), note)
