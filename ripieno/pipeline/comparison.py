"""Runs -> comparison: their figures side by side, and what differs in their settings. It only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ripieno import files
from ripieno.errors import RipienoError, require
from ripieno.library import Library
from ripieno.library.import_predictions import NO_TRIAL
from ripieno.pipeline.compared_costs import (
    best_within,
    common_budgets,
    comparable_costs,
    compared_fronts,
    priced_ensembles,
)
from ripieno.pipeline.compared_data import check_same_data
from ripieno.pipeline.compared_settings import configuration_of, differing_values, seed_groups, settings_of
from ripieno.pipeline.runs import open_run, refuse_policies, task_of
from ripieno.reports.comparison import ComparedEnsemble, ComparedRun, Comparison, comparison_csv, comparison_page
from ripieno.reports.run_data import RunData, load_run
from ripieno.reports.search import failures
from ripieno.search.progress import TOP
from ripieno.selection.hypervolume import CostLoss, hypervolume, pareto_front, reference_point
from ripieno.types import Member


def compare(
    runs: Sequence[str | Path | Library], *, csv: str | Path | None = None, html: str | Path | None = None
) -> Comparison:
    """Compare runs on the same data: figures, fronts, ensembles by budget, and the settings that differ.

    Data are the same where their fingerprints are equal, or the validation samples. Runs may be unfinished: they are
    read as they are, and never written. Costs are compared where they are of one kind, measured on one kind of device
    with one backend. Hypervolumes are those of the kept fronts of ensembles if all measured runs have one, else those
    of the fronts of single members.

    `csv` is a file for a row of each run, `html` one for a page with curves, fronts and tables; both replace what is
    there. Raises LibraryError for a folder that is no run or has no members, RipienoError for fewer than two runs, for
    a run given twice, for runs of other tasks or data, and for files that cannot be written, before anything is;
    MissingExtraError for a page without the extra `report`.
    """
    _check_files(csv, html)
    libraries = [open_run(run) for run in runs]
    for library in libraries:
        refuse_policies(task_of(library), "a comparison")
    paths = [library.path.resolve() for library in libraries]
    if len(paths) < 2:
        given = f"only {libraries[0].path} is given" if libraries else "none is given"
        raise RipienoError(f"a comparison needs two runs or more: {given}")
    for place, path in enumerate(paths):
        if path in paths[:place]:
            first = libraries[paths.index(path)].path
            raise RipienoError(f"{first} and {libraries[place].path} are the same run: give each run once")
    found = _compare([load_run(library) for library in libraries], _short_names(paths))
    content = {}
    if csv is not None:
        content[Path(csv)] = comparison_csv(found)
    if html is not None:
        content[Path(html)] = comparison_page(found)
    for path, data in content.items():
        files.write_bytes(path, data)
    return found


def _check_files(csv: str | Path | None, html: str | Path | None) -> None:
    """Raise RipienoError unless the files can be written, and MissingExtraError without what the page needs."""
    for path in (csv, html):
        if path is not None:
            files.check_file(Path(path))
    if csv is not None and html is not None and Path(csv).resolve() == Path(html).resolve():
        raise RipienoError(f"the table and the page would both be {html}: give two files")
    if html is not None:
        require("jinja2")
        require("matplotlib")


def _compare(readings: Sequence[RunData], names: Sequence[str]) -> Comparison:
    """Return the comparison of runs, of which `names` are unique."""
    notes = check_same_data(readings, names)
    costs = comparable_costs(readings, names, notes)
    tables = costs.tables
    of, points = compared_fronts(readings, tables, costs.kind, names, notes)
    fronts = [pareto_front(own) for own in points]
    reference = reference_point(fronts) if sum(map(bool, fronts)) > 1 else None
    ensembles = [
        list(priced_ensembles(reading, table, costs.kind)) for reading, table in zip(readings, tables, strict=True)
    ]
    budgets = common_budgets(readings, ensembles, costs.kind)
    runs = tuple(
        _run(
            reading,
            name,
            table.alone(costs.kind) if costs.kind else {},
            front,
            hypervolume(front, reference) if reference and front else None,
            tuple(best_within(own, budget, f"test_{reading.score}") for budget in budgets),
        )
        for reading, name, table, front, own in zip(readings, names, tables, fronts, ensembles, strict=True)
    )
    settings = [settings_of(reading.library) for reading in readings]
    return Comparison(
        runs,
        loss=readings[0].ranking,
        score=readings[0].score,
        cost=costs.kind,
        device=costs.device,
        fronts=of,
        reference=reference,
        budgets=budgets,
        settings=differing_values(settings),
        configurations=differing_values([configuration_of(reading.members[0]) for reading in readings]),
        groups=seed_groups(settings),
        notes=tuple(notes),
    )


def _run(
    reading: RunData,
    name: str,
    costs: Mapping[str, float],
    front: tuple[CostLoss, ...],
    volume: float | None,
    ensembles: tuple[ComparedEnsemble | None, ...],
) -> ComparedRun:
    best, curve = reading.members[0], _best_by_time(reading.members)
    lowest: dict[int, float] = {}
    for member in reading.members:  # the best first
        if member.trial != NO_TRIAL:
            lowest.setdefault(member.trial, member.loss)
    top = list(lowest.values())[:TOP]
    return ComparedRun(
        name=name,
        path=reading.library.path,
        best=best.id,
        loss=best.loss,
        score=best.losses.get(f"valid_{reading.score}"),
        top_loss=sum(top) / len(top) if top else None,
        members=len(reading.members),
        trials=len(lowest),
        failures=len(failures(reading.library.journal_path)),
        seconds=curve[-1][0] if curve else 0.0,
        cost=costs.get(best.id),
        hypervolume=volume,
        curve=curve,
        front=front,
        ensembles=ensembles,
    )


def _best_by_time(members: Sequence[Member]) -> tuple[tuple[float, float], ...]:
    """Return the lowest loss by seconds of training; empty where no member was trained in the run."""
    trained = [m for m in members if m.seconds > 0 and not m.averaged]
    steps = []
    before: dict[int, float] = {}
    for member in sorted(trained, key=lambda m: (m.trial, m.epoch)):
        spent = 0.0 if member.trial == NO_TRIAL else before.get(member.trial, 0.0)
        before[member.trial] = member.seconds  # of the whole trial
        steps.append((member.created, member.trial, member.epoch, max(0.0, member.seconds - spent), member.loss))
    curve: list[tuple[float, float]] = []
    total = 0.0
    for *_, seconds, loss in sorted(steps):
        total += seconds
        if not curve or loss < curve[-1][1]:
            curve.append((total, loss))
    if curve and curve[-1][0] < total:
        curve.append((total, curve[-1][1]))
    return tuple(curve)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Return the ends of different paths, without the parts that all of them end in, as short as they are unique."""
    parts = [path.parts for path in paths]
    while len({own[-1] for own in parts}) == 1:
        parts = [own[:-1] for own in parts]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(paths):
            return names
    return [str(path) for path in paths]
