"""Runs -> comparison: their figures side by side, and what differs in their settings. It only reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.blocks import blocks
from ripieno.data.fingerprint import Fingerprint
from ripieno.errors import RipienoError, SearchError, require
from ripieno.library import Library
from ripieno.library.cost_table import CostTable, read_cost_table
from ripieno.library.import_predictions import NO_TRIAL
from ripieno.pipeline.preparation import BEFORE, DEFAULTS
from ripieno.pipeline.runs import open_run
from ripieno.reports.comparison import ComparedEnsemble, ComparedRun, Comparison, comparison_csv, comparison_page
from ripieno.reports.run_data import RunData, kept_front, load_run
from ripieno.reports.search import failures
from ripieno.search.algorithms import algorithm_from_plain, algorithm_to_plain, change_algorithm, find_algorithm
from ripieno.search.settings import Settings, range_text
from ripieno.selection.costs import round_budget
from ripieno.selection.hypervolume import CostLoss, hypervolume, pareto_front, reference_point
from ripieno.shell_command import command
from ripieno.tasks.registry import kind_of
from ripieno.types import Ensemble, Ints, Member, Task, Value, ranking_loss

TOP = 10
"""Number of best trials whose mean loss is shown."""
NESTED = ("space", "algorithm", "eta")
"""Settings that are shown by their parts."""
SEEDS = ("seed", "data.seed")
"""Settings in which the runs of a group may differ."""
BUDGETS = 4
"""Number of budgets at which fronts are compared, where no ensemble was selected for one."""


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
    notes = _check_same_data(readings, names)
    costs = _common_costs(readings, names, notes)
    tables = costs.tables
    of, points = _fronts(readings, tables, costs.kind, names, notes)
    fronts = [pareto_front(own) for own in points]
    reference = reference_point(fronts) if sum(map(bool, fronts)) > 1 else None
    ensembles = [list(_priced(reading, table, costs.kind)) for reading, table in zip(readings, tables, strict=True)]
    budgets = _budgets(readings, ensembles, costs.kind)
    runs = tuple(
        _run(
            reading,
            name,
            table.alone(costs.kind) if costs.kind else {},
            front,
            hypervolume(front, reference) if reference and front else None,
            tuple(_best(own, budget, f"test_{reading.score}") for budget in budgets),
        )
        for reading, name, table, front, own in zip(readings, names, tables, fronts, ensembles, strict=True)
    )
    settings = [_settings(reading.library) for reading in readings]
    return Comparison(
        runs,
        loss=readings[0].ranking,
        score=readings[0].score,
        cost=costs.kind,
        device=costs.device,
        fronts=of,
        reference=reference,
        budgets=budgets,
        settings=_differing(settings),
        configurations=_differing([_configuration(reading.members[0]) for reading in readings]),
        groups=_groups(settings),
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


# data


def _check_same_data(readings: Sequence[RunData], names: Sequence[str]) -> list[str]:
    """Return notes on runs with other validation samples. Raises RipienoError for another task or other data."""
    first, path, others = readings[0], readings[0].library.path, []
    for reading, name in zip(readings[1:], names[1:], strict=True):
        if reading.task != first.task:
            differ = _task_difference(first.task, reading.task)
            raise RipienoError(
                f"{path} and {reading.library.path} have different tasks ({differ}): compare runs of one task"
            )
        own, other = _fingerprint(first.library), _fingerprint(reading.library)
        same_source = own is not None and other is not None and own.digest == other.digest
        if _same_validation(first, reading, same_source):
            continue
        if not same_source:
            differ = f"{own or 'unknown'}; {other or 'unknown'}"
            raise RipienoError(
                f"{path} and {reading.library.path} hold other data ({differ}): compare runs on the same data"
            )
        others.append(name)
    if not others:
        return []
    have = "has" if len(others) == 1 else "have"
    return [
        f"{', '.join(others)} {have} other validation samples than {names[0]}, which adds to the differences of losses"
    ]


def _task_difference(first: Task, other: Task) -> str:
    """Return what differs between two tasks."""
    if first.kind != other.kind:
        return f"{first.kind}; {other.kind}"
    if first.names != other.names:
        title = kind_of(first).names_title
        only = [", ".join([n for n in a.names if n not in b.names][:3]) for a, b in ((first, other), (other, first))]
        return f"{len(first.names)} and {len(other.names)} {title}" + (
            f"; without the other: {only[0] or 'none'}; {only[1] or 'none'}" if any(only) else " in another order"
        )
    return " and ".join(" x ".join(map(str, task.output)) for task in (first, other))


def _fingerprint(library: Library) -> Fingerprint | None:
    """Return the fingerprint of the data that a run was made from; None where none is known."""
    stored = _source(library).get("fingerprint")
    return None if stored is None else Fingerprint(**stored)


def _source(library: Library) -> dict[str, Any]:
    record = library.dataset_path / "source.json"
    return files.read_json(record, dict[str, Any]) if record.exists() else {}


def _same_validation(first: RunData, other: RunData, same_source: bool) -> bool:
    """Return whether two runs validate on the same samples; data of one source have the same order."""
    data = [reading.dataset for reading in (first, other) if reading.dataset is not None]
    if same_source and len(data) == 2:
        return np.array_equal(data[0].rows("valid"), data[1].rows("valid"))  # also where their sizes differ
    targets = [files.read_array(reading.library.targets_path("valid")) for reading in (first, other)]
    if not _equal(targets, [np.arange(len(one)) for one in targets]):
        return False
    return len(data) < 2 or _equal([one.inputs for one in data], [one.rows("valid") for one in data])


def _equal(arrays: Sequence[NDArray[Any]], rows: Sequence[Ints]) -> bool:
    """Return whether some rows of two arrays are equal, block by block, without a copy of large ones."""
    if len(rows[0]) != len(rows[1]) or arrays[0].shape[1:] != arrays[1].shape[1:] or arrays[0].dtype != arrays[1].dtype:
        return False
    return all(
        np.array_equal(arrays[0][rows[0][block]], arrays[1][rows[1][block]], equal_nan=True)
        for block in blocks(arrays[0], len(rows[0]))
    )


# costs, fronts and ensembles


@dataclass(frozen=True)
class _Costs:
    """Costs of all runs in one `kind`, measured on one `device`; empty tables and names where none compare."""

    kind: str
    device: str
    tables: tuple[CostTable, ...]


def _common_costs(readings: Sequence[RunData], names: Sequence[str], notes: list[str]) -> _Costs:
    """Return the costs that compare; add the reason to `notes` where those that are known do not."""
    none = _Costs("", "", tuple(CostTable({}, {}, {}) for _ in readings))
    known = [(reading, name) for reading, name in zip(readings, names, strict=True) if reading.table.own]
    if not known:
        return none
    if len({reading.kind for reading, _ in known}) > 1:
        each = ", ".join(f"{reading.kind} ({name})" for reading, name in known)
        notes.append(f"costs are of different kinds and are not compared: {each}")
        return none
    kind = known[0][0].kind
    measured = [_device_counts(reading) for reading, _ in known]
    shared = set.intersection(*map(set, measured))
    if not shared:
        each = ", ".join(f"{' or '.join(counts)} ({name})" for counts, (_, name) in zip(measured, known, strict=True))
        notes.append(f"costs were measured on different devices and are not compared: {each}")
        return none
    device = max(sorted(shared), key=lambda one: sum(counts[one] for counts in measured))
    backends = {name: _backend(reading.library, device) for reading, name in known}
    if len(set(backends.values())) > 1:
        each = ", ".join(f"{backend} ({name})" for name, backend in backends.items())
        notes.append(f"costs were measured with different backends and are not compared: {each}")
        return none
    tables = (
        reading.table
        if reading.device == device
        else read_cost_table(reading.library, (kind,), device, reading.members)
        for reading in readings
    )
    return _Costs(kind, device, tuple(tables))


def _device_counts(reading: RunData) -> dict[str, int]:
    """Return the kinds of device that a run was measured on and its profiles of each; "" for imported costs."""
    if not reading.device:
        return {"": len(reading.table.own)}
    counts = {kind: len(reading.library.profiles(kind)) for kind in reading.library.profile_devices()}
    return {kind: count for kind, count in counts.items() if count}


def _backend(library: Library, device: str) -> str:
    """Return the backend of the profiles of a run on a kind of device; empty for imported costs."""
    profiles = library.profiles(device) if device else {}
    return next((profile.backend for profile in profiles.values()), "")


def _fronts(
    readings: Sequence[RunData], tables: Sequence[CostTable], kind: str, names: Sequence[str], notes: list[str]
) -> tuple[str, list[list[CostLoss]]]:
    """Return what the fronts are of, and the points of each run's: of kept fronts if every run with costs has one."""
    kept = []
    for reading, table in zip(readings, tables, strict=True):
        front = kept_front(reading) if table.own else None
        points = [(_cost(e, table, kind), ranking_loss(e.losses)) for e in (front.ensembles if front else ())]
        kept.append([(cost, loss) for cost, loss in points if cost is not None and loss is not None])
    costed = [place for place, table in enumerate(tables) if table.own]
    lacking = [place for place in costed if not kept[place]]
    if not lacking:
        return ("ensembles" if costed else ""), kept
    if len(lacking) < len(costed):
        advice = " and ".join(f"`{command('front', readings[place].library.path)}`" for place in lacking)
        listed = ", ".join(names[place] for place in lacking)
        notes.append(f"fronts are of single members, because {listed} has no front of ensembles: {advice} makes it")
    members = [
        [(cost, member.loss) for member in reading.members if (cost := alone.get(member.id)) is not None]
        for reading, alone in ((reading, table.alone(kind)) for reading, table in zip(readings, tables, strict=True))
    ]
    return "members", members


def _cost(ensemble: Ensemble, table: CostTable, kind: str) -> float | None:
    """Return the cost of an ensemble, each backbone once; None where that of a member is not known."""
    known = all(member in table.own for member in ensemble.members)
    return table.total(ensemble.members)[kind] if known and ensemble.members else None


def _priced(reading: RunData, table: CostTable, kind: str) -> Iterator[tuple[float, Ensemble]]:
    """Yield the ensembles of a run, selected or of its front, with their costs."""
    front = kept_front(reading)
    for ensemble in (*reading.ensembles, *(front.ensembles if front else ())):
        if kind and (cost := _cost(ensemble, table, kind)) is not None and ranking_loss(ensemble.losses) is not None:
            yield cost, ensemble


def _budgets(
    readings: Sequence[RunData], ensembles: Sequence[Sequence[tuple[float, Ensemble]]], kind: str
) -> tuple[float, ...]:
    """Return the budgets that ensembles were selected for, else some between the costs of the fronts."""
    known = [own for own in ensembles if own]
    selected = {e.budget[kind] for reading in readings for e in reading.ensembles if kind in e.budget}
    if not known or selected:
        return tuple(sorted(selected)) if known else ()
    low = max(min(cost for cost, _ in own) for own in known)
    high = max(cost for own in known for cost, _ in own)
    return tuple(dict.fromkeys(round_budget(float(budget)) for budget in np.geomspace(low, high, BUDGETS)))


def _best(priced: Sequence[tuple[float, Ensemble]], budget: float, score: str) -> ComparedEnsemble | None:
    """Return the ensemble of the lowest loss within a budget (ties: the cheapest); None where there is none."""
    inside = [
        (loss, cost, e)
        for cost, e in priced
        if cost <= budget * (1 + 1e-9) and (loss := ranking_loss(e.losses)) is not None
    ]
    if not inside:
        return None
    loss, cost, best = min(inside, key=lambda one: one[:2])
    return ComparedEnsemble(best.name, len(best.members), cost, loss, best.expected_loss, best.losses.get(score))


# settings


def _settings(library: Library) -> dict[str, str]:
    """Return the settings of a run's search and data as text, by name; those that older versions lack have defaults."""
    values: dict[str, Any] = {}
    if (library.path / "run.json").exists():
        kept = files.read_json(library.path / "run.json", dict[str, Any])
        values |= _algorithm(kept)
        values |= {f.name: kept.get(f.name, f.default) for f in dataclasses.fields(Settings) if f.name not in NESTED}
        space = kept.get("space") or {}
        values |= {name: space.get(part) for name, part in (("space", "name"), ("family", "family"))}
        ranges = {**space.get("ranges", {}), **space.get("fixed", {})}
        values |= {f"space.{name}": range_text(value) for name, value in ranges.items()}
    if source := _source(library):
        options = DEFAULTS | BEFORE | source
        values |= {f"data.{name}": options[name] for name in DEFAULTS}
    return {name: _text(value) for name, value in values.items()}


def _algorithm(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a search's algorithm; only what its record says where this version does not know it."""
    recorded = kept.get("algorithm", Settings.algorithm)
    try:
        found = algorithm_from_plain(recorded) if isinstance(recorded, Mapping) else find_algorithm(recorded)
        options = algorithm_to_plain(change_algorithm(found, eta=kept.get("eta")))
    except SearchError:
        options = dict(recorded) if isinstance(recorded, Mapping) else {"name": recorded}
    return {"algorithm" if name == "name" else f"algorithm.{name}": value for name, value in options.items()}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = [f"{name}={part}" for name, part in value.items()]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _configuration(member: Member) -> dict[str, Value]:
    return {"family": member.family, member.unit: member.epoch, **member.configuration}


def _differing(of_runs: Sequence[Mapping[str, Value]]) -> dict[str, tuple[Any, ...]]:
    """Return the names whose values are not the same in all runs, and the values; None: a run has none."""
    names: Collection[str] = dict.fromkeys(name for one in of_runs for name in one)
    values = {name: tuple(one.get(name) for one in of_runs) for name in names}
    return {name: own for name, own in values.items() if any(value != own[0] for value in own)}


def _groups(of_runs: Sequence[Mapping[str, str]]) -> tuple[tuple[int, ...], ...]:
    """Return the indices of runs by their settings without the seed; none where each has others, or all one seed."""
    groups: dict[object, list[int]] = {}
    for place, settings in enumerate(of_runs):
        others = frozenset((name, value) for name, value in settings.items() if name not in SEEDS)
        # the same settings again are another group, and imports have none
        repeated = sum(settings == earlier for earlier in of_runs[:place])
        groups.setdefault((others, repeated) if "algorithm" in settings else place, []).append(place)
    return tuple(map(tuple, groups.values())) if len(groups) < len(of_runs) else ()
