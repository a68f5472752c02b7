"""Costs of members and the bounds on their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.selection.objective import Floats, Ints

Budget = float | Mapping[str, float] | None
ROUNDING = 1e-9
"""A sum of costs may pass its budget by this share: 0.1 + 0.2 + 0.3 fits 0.6."""


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs `values` (members, kinds) of `kinds`; each ensemble's cost of a kind is the sum of its members'."""

    kinds: tuple[str, ...]
    values: Floats

    def limits(self, budget: Budget) -> Floats:
        """Bound per kind, infinite where there is none. Raises SelectionError for a budget that cannot be one."""
        if budget is None:
            return np.full(len(self.kinds), np.inf)
        if isinstance(budget, Mapping):
            unknown = [kind for kind in budget if kind not in self.kinds]
            if unknown:
                raise SelectionError(f"budget on {unknown[0]!r}, but the costs are: {', '.join(self.kinds)}")
            bounds = [budget.get(kind, np.inf) for kind in self.kinds]
        elif len(self.kinds) == 1:
            bounds = [budget]
        else:
            kinds = ", ".join(self.kinds)
            raise SelectionError(f"one budget, but several costs ({kinds}): give a mapping, a bound a kind")
        for kind, bound in zip(self.kinds, bounds, strict=True):
            if isinstance(bound, bool) or not isinstance(bound, int | float | np.number) or not bound > 0:
                raise SelectionError(f"budget of {bound!r} {kind}: it must be a number above 0")
        return np.array(bounds, dtype=np.float64)

    def fits(self, limits: Floats, used: Floats | None = None) -> NDArray[np.bool_]:
        """Which members fit into what `used` (kinds,) leaves of `limits`."""
        values = self.values if used is None else self.values + used
        return np.asarray((values <= limits * (1 + ROUNDING)).all(axis=1))

    def affordable(self, limits: Floats, members: Ints, most: int) -> int:
        """How many of `members`, at most `most`, the budgets could pay for if each kind of cost took its cheapest."""
        totals = np.cumsum(np.sort(self.values[members], axis=0), axis=0)[:most]
        return int((totals <= limits * (1 + ROUNDING)).all(axis=1).sum())

    def leaves_room(self, limits: Floats, used: Floats, members: Ints, more: int) -> NDArray[np.bool_]:
        """Which of `members` can be added to what is `used` such that the cheapest `more` of the others still fit.

        With several kinds of cost the cheapest of each are counted, which need not be the same members.
        """
        values = self.values[members]
        cheapest = np.sort(values, axis=0)
        rest = cheapest[:more].sum(axis=0)
        # among the cheapest itself, a member leaves the next one in its place
        beyond = rest + cheapest[min(more, len(cheapest) - 1)]
        needs = used + np.maximum(values + rest, beyond if more < len(cheapest) else np.inf)
        return np.asarray((needs <= limits * (1 + ROUNDING)).all(axis=1))

    def shares(self, limits: Floats, used: Floats) -> Floats:
        """r = C/B with each member added (equation 2): the largest share of a budget, 0 without any bound."""
        return np.asarray(((self.values + used) / limits).max(axis=1), dtype=np.float64)

    def total(self, members: Iterable[int]) -> Floats:
        """Sum (kinds,) over the distinct `members`."""
        distinct = list(dict.fromkeys(members))
        total: Floats = self.values[distinct].sum(axis=0)
        return total

    def named(self, total: Floats) -> dict[str, float]:
        """`total` by kind."""
        return {kind: float(value) for kind, value in zip(self.kinds, total, strict=True)}


def round_budget(cost: float, digits: int = 2) -> float:
    """The least number of `digits` significant digits that `cost` fits: a budget to be read and typed."""
    return float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(cost))))


def read_costs(costs: ArrayLike | Mapping[str, ArrayLike] | None, budget: Budget, names: Sequence[str]) -> Costs:
    """Costs from what a user brings: (members,), (members, kinds) or a mapping of kinds; None: each member costs 1.

    The kinds of an array are named by a budget that is a mapping, in its order. Raises SelectionError naming the
    member whose cost cannot be one.
    """
    if isinstance(costs, Mapping):
        kinds = tuple(str(kind) for kind in costs)
        if not kinds:
            raise SelectionError("costs are an empty mapping: give at least one kind, or None")
        columns = [_column(costs[kind], kind, len(names)) for kind in costs]
        values = np.stack(columns, axis=1)
    else:
        values = np.ones(len(names)) if costs is None else _numbers(costs, "costs")
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or len(values) != len(names) or not values.shape[1]:
            raise SelectionError(f"costs of shape {values.shape}: must be ({len(names)},) or ({len(names)}, kinds)")
        kinds = _kinds(values.shape[1], budget, "members" if costs is None else "cost")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)).all(axis=1))
    if len(wrong):
        shown = ", ".join(f"{v:g}" for v in values[wrong[0]])
        raise SelectionError(f"{names[wrong[0]]} costs {shown}: a cost must be finite and not negative")
    return Costs(kinds, values)


def _kinds(count: int, budget: Budget, single: str) -> tuple[str, ...]:
    if isinstance(budget, Mapping):
        if len(budget) != count:
            raise SelectionError(f"{len(budget)} budgets for {count} columns of costs: name each column in the mapping")
        return tuple(str(kind) for kind in budget)
    return (single,) if count == 1 else tuple(f"cost {k}" for k in range(count))


def _column(values: ArrayLike, kind: str, count: int) -> Floats:
    column = _numbers(values, f"costs of {kind!r}")
    if column.shape != (count,):
        raise SelectionError(f"costs of {kind!r} have shape {column.shape}: must be ({count},), one a member")
    return column


def _numbers(values: ArrayLike, what: str) -> Floats:
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise SelectionError(f"{what} are masked at some places: give each member a cost")
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SelectionError(f"{what} are not numbers: {error}") from error
