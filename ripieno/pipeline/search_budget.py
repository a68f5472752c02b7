"""Budget of a search: networks that no ensemble under it can use are not trained.

A network alone must fit the budget. Parameters, FLOPs and bytes follow from a configuration, so they bound exactly.
Seconds, memory and latency are predicted (`cost_samples`), and only what is predicted to cost more than twice the
budget is left out. Where few configurations fit, the ends of the ranges that cost most are cut as well.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ripieno.errors import SearchError
from ripieno.library.cost_table import MEASURED
from ripieno.models.configuration_costs import KNOWN, configuration_costs
from ripieno.pipeline.budgets import Budget, bounds_of, format_bounds, kinds_of
from ripieno.pipeline.cost_samples import CostRecord, cost_features
from ripieno.pipeline.time_fit import cuts, describe_values, within
from ripieno.pipeline.trial_packing_benchmark import sample_configurations
from ripieno.search.constraints import Bounds, Constraint, KnownCosts
from ripieno.search.space import Categorical, Space
from ripieno.types import Configuration, Input, Task

KINDS = (*MEASURED, *KNOWN)
"""Kinds of cost that the budget of a search may bound."""
FACTOR = 2.0
"""A network is left out if a cost is predicted above the budget times this. A model that is less exact bounds none."""
IDLE = 1000.0
"""A bound this many times above the costs of all configurations that are drawn is not worth a word."""
DRAWN = 64
"""Configurations of which the share that fits is counted."""
LEAST_SHARE = 0.05
"""Where a smaller share of them fits, the space is narrowed."""
ENOUGH_SHARE = 0.25
"""Share of a narrowed space that fits, at least, as far as cuts reach it."""

BudgetShare = Callable[[Configuration], float]
"""Largest share of a bound that a configuration costs; above 1 it does not fit."""


def read_budget(budget: Budget | None) -> dict[str, float]:
    """Return the bounds of a search's `budget` by kind; a plain number bounds the seconds. None: no bounds.

    Raises SelectionError for a bound that is no number above 0, SearchError for a kind that a search cannot bound.
    """
    if budget is None:
        return {}
    kinds_of([budget], "seconds")
    bounds = bounds_of(budget, "seconds")
    if unknown := [kind for kind in bounds if kind not in KINDS]:
        raise SearchError(f"budget of {unknown[0]!r}: the budget of a search may bound {', '.join(KINDS)}")
    return bounds


def known_costs(family: str, input: Input, task: Task, record: CostRecord) -> KnownCosts:
    """Return the function of the costs of a configuration of `family`, known or predicted before it is trained."""

    def costs(configuration: Configuration) -> Mapping[str, float]:
        known = configuration_costs(family, configuration, input, task)
        if not record.models:
            return known
        features = cost_features(family, configuration, input, task)
        return known | {kind: model.predict(features) for kind, model in record.models.items()}

    return costs


@dataclass(frozen=True, eq=False)
class SearchBudget:
    """Bounds of a search of a space by a budget."""

    space: Space
    """narrowed where few of its configurations fit"""
    bounds: Mapping[str, float]
    """largest cost by kind of a network that is trained, of the kinds that are known or predicted before"""
    costs: KnownCosts
    notes: tuple[str, ...]

    @property
    def limits(self) -> Bounds:
        """Bounds of the configurations that a search draws."""
        return Bounds(tuple(Constraint(kind, "<=", bound) for kind, bound in self.bounds.items()), self.costs)


def plan_budget(
    budget: Mapping[str, float],
    space: Space,
    input: Input,
    task: Task,
    seed: int,
    find_models: Callable[[], CostRecord],
    *,
    is_network: bool,
    may_narrow: bool,
) -> SearchBudget:
    """Return the bounds of a search of `space` by `budget`, a bound by kind, and one note or two on them.

    `find_models` gives the models of measured costs; it is called only where the budget bounds one and the trainer
    `is_network`. The space is narrowed where few of its configurations fit and it `may_narrow`. Raises SearchError, in
    one line with the cheapest costs, where none fits.
    """
    predictable = is_network and any(kind in MEASURED for kind in budget)
    record = find_models() if predictable else CostRecord("", {})
    costs = known_costs(space.family, input, task, record) if is_network else lambda _: {}
    drawn: list[Configuration] = sample_configurations(space, seed, DRAWN)
    bounds = largest_costs(budget, costs(drawn[0]), record)
    share = budget_share(costs, bounds)
    fitted, fitting = fit_to_budget(space, share, drawn) if bounds else (space, 1.0)
    if not fitting:
        found = costs(find_cheapest(space, share, min(drawn, key=share)))
        least = " and ".join(f"{found[kind]:.3g} {kind}" for kind in bounds)
        raise SearchError(
            f"no network of space {space.name} fits the budget of {format_bounds(budget)}: the cheapest costs {least}; "
            "give a larger --budget, or a --space of smaller networks"
        )
    fitted = fitted if may_narrow else space
    idle = {kind for kind in bounds if max(costs(c)[kind] for c in drawn) * IDLE < bounds[kind]}
    notes = describe_budget({k: b for k, b in budget.items() if k not in idle}, bounds, record)
    cut = [f"{n} {describe_values(choice)}" for n, choice in fitted.ranges.items() if choice != space.ranges[n]]
    if cut:
        notes.append(f"few networks of the space fit the budget, so the search has {', '.join(cut)}")
    return SearchBudget(fitted, bounds, costs, tuple(notes))


def largest_costs(budget: Mapping[str, float], known: Mapping[str, float], record: CostRecord) -> dict[str, float]:
    """Return the largest cost by kind of a network that is trained, of the kinds that bound before training.

    `known` are the costs of any configuration. A model of a cost that is off by more than `FACTOR` does not bound.
    """
    bounds = {kind: bound for kind, bound in budget.items() if kind in KNOWN and kind in known}
    exact = [kind for kind, model in record.models.items() if kind in budget and model.error <= FACTOR]
    return bounds | {kind: FACTOR * budget[kind] for kind in exact}


def describe_budget(budget: Mapping[str, float], bounds: Mapping[str, float], record: CostRecord) -> list[str]:
    """Return a line on how `budget` bounds a search, and one on its kinds that leave out no network."""
    lines = []
    if exact := {kind: bound for kind, bound in bounds.items() if kind in KNOWN and kind in budget}:
        lines.append(f"networks over the budget of {format_bounds(exact)} are not trained")
    for kind, model in record.models.items():
        if kind in bounds and kind in budget:
            lines.append(
                f"networks predicted above {bounds[kind]:g} {kind}, twice the budget, are not trained: predicted from "
                f"{model.samples} networks on {record.device}, typically off by a factor of {model.error:.2f}"
                + ("" if record.idle else ", and measured while the machine was busy")
            )
    if others := [kind for kind in budget if kind not in bounds]:
        models = [record.models[kind] for kind in others if kind in record.models]
        reason = f"predicted only within a factor of {max(m.error for m in models):.1f}" if models else "not known"
        lines.append(
            f"no network is left out for its {' and '.join(others)}, {reason} before training: `select` bounds what is "
            "measured"
        )
    return lines


def budget_share(costs: KnownCosts, bounds: Mapping[str, float]) -> BudgetShare:
    """Return the function of the largest share of `bounds` that a configuration costs; above 1 it does not fit."""

    def share(configuration: Configuration) -> float:
        found = costs(configuration)
        return max((found[kind] / bound for kind, bound in bounds.items()), default=0.0)

    return share


def fit_to_budget(space: Space, share: BudgetShare, drawn: Sequence[Configuration]) -> tuple[Space, float]:
    """Return `space`, narrowed where few of its configurations fit, and the share of them that fits.

    That is 0 where none does. `share` is that of `budget_share`, and `drawn` are configurations of the space. Cuts are
    made one at a time, each time the one after which most configurations fit, until `ENOUGH_SHARE` of them do, or no
    cut helps. The result depends on the arguments only.
    """
    rating = _rating([share(configuration) for configuration in drawn])
    if rating[0] >= LEAST_SHARE:
        return space, rating[0]
    cheapest = find_cheapest(space, share, min(drawn, key=share))
    if share(cheapest) > 1:
        return space, 0.0
    ranges, drawn, dearest = dict(space.ranges), list(drawn), max(drawn, key=share)
    names = [name for name in ranges if share({**dearest, name: cheapest[name]}) != share(dearest)]
    while rating[0] < ENOUGH_SHARE:
        rated = [
            (_rating([share(within(configuration, name, cut)) for configuration in drawn]), name, cut)
            for name in names
            for cut, _ in cuts(ranges[name])
            if not isinstance(cut, Categorical) or cheapest[name] in cut.choices
        ]
        best = max(rated, key=lambda one: one[0], default=None)
        if best is None or best[0] <= rating:
            break
        rating, cut_name, narrower = best
        ranges[cut_name] = narrower
        drawn = [within(configuration, cut_name, narrower) for configuration in drawn]
    return dataclasses.replace(space, ranges=ranges), rating[0]


def _rating(shares: Sequence[float]) -> tuple[float, float]:
    """Return how many of the configurations with `shares` of a budget fit, then how far they are from it."""
    return fmean(share <= 1 for share in shares), -fmean(math.log(max(share, 1e-12)) for share in shares)


def find_cheapest(space: Space, share: BudgetShare, start: Configuration) -> Configuration:
    """Return the configuration with the smallest `share` that changes of one value at a time reach from `start`."""
    best, least = start, share(start)
    while True:
        before = least
        for name, choice in space.ranges.items():
            for value in choice.choices if isinstance(choice, Categorical) else (choice.low, choice.high):
                changed = {**best, name: value}
                if (cost := share(changed)) < least:
                    best, least = changed, cost
        if least >= before:
            return best
