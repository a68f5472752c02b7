"""Budgets of a selection: their bounds, their validation, and the names of ensembles."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.errors import LibraryError, SelectionError
from ripieno.library import Library
from ripieno.library.cost_table import COUNTED, MEASURED
from ripieno.selection.costs import Budget as Budget
from ripieno.selection.losses import losses_of
from ripieno.selection.validation import default_calibration
from ripieno.tasks.registry import TASKS
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Ensemble


def bounds_of(budget: Budget, plain: str) -> dict[str, float]:
    """Return the bound for each kind of cost; a plain number bounds the kind `plain`."""
    return {k: float(v) for k, v in budget.items()} if isinstance(budget, Mapping) else {plain: float(budget)}


def kept_budget(run: Path) -> dict[str, float]:
    """Return the budget of the search of a run by kind; empty where it has none."""
    try:
        kept = files.read_json(run / "run.json", dict[str, Any])
    except LibraryError:
        return {}
    found = kept.get("budget")
    return {str(kind): float(bound) for kind, bound in found.items()} if isinstance(found, Mapping) else {}


def constrained_budget(library: Library) -> list[str]:
    """Return the upper bounds of costs in a run's constraints as a budget of `select`: `bytes=4000000`."""
    # late: budgets of selections need no search
    from ripieno.search.constraints import parse_constraints
    from ripieno.search.settings import kept_settings

    kept = kept_settings(library.path / "run.json")
    bounds = parse_constraints(kept.constraints if kept else ())
    return [f"{c.name}={c.bound:.12g}" for c in bounds if c.sign == "<=" and c.name in (*MEASURED, *COUNTED)]


def needs_no_measurement(library: Library) -> bool:
    """Return whether a run's search bounds costs, and only such as are counted, so that `select` can follow at once."""
    kinds = kept_budget(library.path) or dict(bound.split("=") for bound in constrained_budget(library))
    return bool(kinds) and all(kind in COUNTED for kind in kinds)


def plain_budget(bounds: Mapping[str, float]) -> Budget:
    """Return bounds as a user gives them: seconds alone as a number."""
    return bounds["seconds"] if set(bounds) == {"seconds"} else dict(bounds)


def kinds_of(budgets: Sequence[Budget] | None, plain: str) -> tuple[str, ...]:
    """Return the kinds of cost that all `budgets` bound.

    Raises SelectionError when `budgets` is empty, when they bound different kinds, or when one is no number above 0.
    """
    if budgets is None:
        return (plain,)
    try:
        bounds = [bounds_of(budget, plain) for budget in budgets]
    except (TypeError, ValueError) as error:
        raise SelectionError(
            f"budgets {budgets!r} cannot be read: each must be a number, or a number for each kind of cost"
        ) from error
    if not bounds:
        raise SelectionError("budgets is empty: give at least one, or None for a few around the best member's cost")
    for one in bounds:
        wrong = [f"{bound:g} {kind}" for kind, bound in one.items() if not 0 < bound < math.inf]
        if wrong or not one:
            raise SelectionError(f"budget {(wrong or ['of nothing'])[0]} is not valid: it must be a number above 0")
        if set(one) != set(bounds[0]):
            raise SelectionError("budgets bound different kinds of cost: select for one kind at a time")
    return tuple(bounds[0])


def name_of(
    budget: Budget,
    method: str | None,
    loss: str,
    combiner: str,
    calibrate: str | None = None,
    kind: TaskKind = TASKS["classification"],
) -> str:
    """Return the name of an ensemble: its budget, then each option that is not the default.

    For example `B20`, `B20-swap-macro-f1-vote`, and `B-seconds20-memory4.29e+09` for a mapping. A named method is part
    of it even if it is the default, as it changes the other defaults.
    """
    if isinstance(budget, Mapping):
        parts = ["B", *(f"{kind}{bound:.3g}" for kind, bound in budget.items())]
    else:
        parts = [f"B{budget:g}"]
    parts += [] if method is None else [method]
    parts += [word for word, default in ((loss, losses_of(kind)[0]), (combiner, "mean")) if word != default]
    if calibrate not in (None, default_calibration(method, combiner, kind)):
        parts.append("uncalibrated" if calibrate == "none" else calibrate)
    return "-".join(parts)


def affordable(
    budgets: Sequence[Budget], plain: str, costs: Mapping[str, Sequence[float]], notes: list[str]
) -> list[Budget]:
    """Return the budgets that at least one member fits, and note the rest; all of them where no member fits any.

    `costs` holds the costs of all members by kind.
    """
    from ripieno.selection.costs import ROUNDING

    def fits(budget: Budget) -> bool:
        bounds = bounds_of(budget, plain)
        rows = zip(*(costs[kind] for kind in bounds), strict=True)
        limits = [bound * (1 + ROUNDING) for bound in bounds.values()]
        return any(all(cost <= limit for cost, limit in zip(row, limits, strict=True)) for row in rows)

    fitting = [fits(budget) for budget in budgets]
    if not any(fitting):
        return list(budgets)
    dropped = [format_bounds(bounds_of(budget, plain)) for budget, fit in zip(budgets, fitting, strict=True) if not fit]
    if dropped:
        least = ", ".join(f"{min(values):.4g} {kind}" for kind, values in costs.items())
        notes.append(f"no member fits the budget of {' or '.join(dropped)}: the cheapest costs {least}")
    return [budget for budget, fit in zip(budgets, fitting, strict=True) if fit]


def format_bounds(bounds: Mapping[str, float]) -> str:
    """Format bounds as text: `20 seconds`, `20 seconds and 4e+09 memory`."""
    return " and ".join(f"{bound:g} {kind}" for kind, bound in bounds.items())


def same_ensembles(ensembles: Sequence[Ensemble], among: Collection[str] | None = None) -> list[str]:
    """Return a note for each group of identical `ensembles` with different names.

    With `among`, a collection of names, only groups that hold one of these names are noted.
    """
    groups: dict[object, list[str]] = {}
    for ensemble in ensembles:
        weights = frozenset(zip(ensemble.members, ensemble.weights, strict=True))
        temperatures = frozenset(zip(ensemble.members, ensemble.temperatures, strict=False))
        key = (weights, ensemble.combiner, temperatures, ensemble.temperature)
        groups.setdefault(key, []).append(ensemble.name)
    repeated = [names for names in groups.values() if len(names) > 1 and (among is None or set(names) & set(among))]
    return [f"{', '.join(names[:-1])} and {names[-1]} are the same ensemble: the same members" for names in repeated]
