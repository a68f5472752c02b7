"""Budgets of a selection: what they bound, whether they can be used, and how ensembles are named after them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from ripieno.errors import SelectionError
from ripieno.types import Ensemble

Budget = float | Mapping[str, float]
"""Seconds for 2,000 samples, or a bound for each of several kinds of cost."""
DEFAULTS = ("smobf", "cross-entropy", "mean")
"""Method, loss and combiner that an ensemble's name does not state."""


def bounds_of(budget: Budget, plain: str) -> dict[str, float]:
    """Return the bound for each kind of cost; a plain number bounds the kind `plain`."""
    return {k: float(v) for k, v in budget.items()} if isinstance(budget, Mapping) else {plain: float(budget)}


def kinds_of(budgets: Sequence[Budget] | None, plain: str) -> tuple[str, ...]:
    """Return the kinds of cost that all `budgets` bound.

    Raises SelectionError when there is no budget, when they bound different kinds, or one is no number above 0.
    """
    if budgets is None:
        return (plain,)
    try:
        bounds = [bounds_of(budget, plain) for budget in budgets]
    except (TypeError, ValueError) as error:
        raise SelectionError(
            f"budgets {budgets!r}: each must be a number, or a number for each kind of cost"
        ) from error
    if not bounds:
        raise SelectionError("no budgets: give at least one, or None for a few around the best network's cost")
    for one in bounds:
        wrong = [f"{bound:g} {kind}" for kind, bound in one.items() if not 0 < bound < math.inf]
        if wrong or not one:
            raise SelectionError(f"budget of {(wrong or ['nothing'])[0]}: it must be a number above 0")
        if set(one) != set(bounds[0]):
            raise SelectionError("all budgets must bound the same kinds of cost: select them one after the other")
    return tuple(bounds[0])


def name_of(budget: Budget, method: str, loss: str, combiner: str) -> str:
    """`B20`; `B-seconds20-memory4.29e+09` for a mapping; then what is not the default: `B20-swap-macro-f1-vote`."""
    if isinstance(budget, Mapping):
        parts = ["B", *(f"{kind}{bound:.3g}" for kind, bound in budget.items())]
    else:
        parts = [f"B{budget:g}"]
    chosen = zip((method, loss, combiner), DEFAULTS, strict=True)
    return "-".join([*parts, *(word for word, default in chosen if word != default)])


def affordable(
    budgets: Sequence[Budget], plain: str, costs: Mapping[str, Sequence[float]], notes: list[str]
) -> list[Budget]:
    """Return the budgets that some member fits, and note the others; all of them where no member fits any.

    `costs` has for each kind what every member costs.
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
    lost = [said(bounds_of(budget, plain)) for budget, there in zip(budgets, fitting, strict=True) if not there]
    if lost:
        least = ", ".join(f"{min(values):.4g} {kind}" for kind, values in costs.items())
        notes.append(f"no member fits the budget of {' or '.join(lost)}: the cheapest costs {least}")
    return [budget for budget, there in zip(budgets, fitting, strict=True) if there]


def said(bounds: Mapping[str, float]) -> str:
    """`20 seconds`, `20 seconds and 4e+09 memory`."""
    return " and ".join(f"{bound:g} {kind}" for kind, bound in bounds.items())


def same_ensembles(ensembles: Sequence[Ensemble], among: Collection[str] | None = None) -> list[str]:
    """Return a line for each group of `ensembles` that answer alike, one and the same under several names.

    With `among`, names, only for groups that hold one of these.
    """
    groups: dict[object, list[str]] = {}
    for ensemble in ensembles:
        weights = frozenset(zip(ensemble.members, ensemble.weights, strict=True))
        groups.setdefault((weights, ensemble.combiner), []).append(ensemble.name)
    told = [names for names in groups.values() if len(names) > 1 and (among is None or set(names) & set(among))]
    return [f"{', '.join(names[:-1])} and {names[-1]} are the same ensemble: the same members" for names in told]
