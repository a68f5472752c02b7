"""Costs that compare between runs, and the fronts and ensembles that they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.library import Library
from ripieno.library.cost_table import CostTable, read_cost_table
from ripieno.reports.comparison import ComparedEnsemble
from ripieno.reports.run_data import RunData, kept_front
from ripieno.selection.costs import round_budget
from ripieno.selection.hypervolume import CostLoss
from ripieno.shell_command import command
from ripieno.types import Ensemble, ranking_loss

BUDGETS = 4
"""Number of budgets at which fronts are compared, where no ensemble was selected for one."""


@dataclass(frozen=True)
class ComparedCosts:
    """Costs of all runs in one `kind`, measured on one `device`; empty tables and names where none compare."""

    kind: str
    device: str
    tables: tuple[CostTable, ...]


def comparable_costs(readings: Sequence[RunData], names: Sequence[str], notes: list[str]) -> ComparedCosts:
    """Return the costs that compare; add the reason to `notes` where those that are known do not."""
    none = ComparedCosts("", "", tuple(CostTable({}, {}, {}) for _ in readings))
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
    return ComparedCosts(kind, device, tuple(tables))


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


def compared_fronts(
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


def priced_ensembles(reading: RunData, table: CostTable, kind: str) -> Iterator[tuple[float, Ensemble]]:
    """Yield the ensembles of a run, selected or of its front, with their costs."""
    front = kept_front(reading)
    for ensemble in (*reading.ensembles, *(front.ensembles if front else ())):
        if kind and (cost := _cost(ensemble, table, kind)) is not None and ranking_loss(ensemble.losses) is not None:
            yield cost, ensemble


def common_budgets(
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


def best_within(priced: Sequence[tuple[float, Ensemble]], budget: float, score: str) -> ComparedEnsemble | None:
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
