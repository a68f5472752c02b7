"""Costs of members and budgets on their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.types import Floats, Ints

Budget = float | Mapping[str, float]
"""Seconds for 2,000 samples, or a bound for each of several kinds of cost."""
ROUNDING = 1e-9
"""Relative amount by which a sum of costs may exceed its budget: 0.1 + 0.2 + 0.3 fits 0.6."""


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs `values` (members, kinds) of `kinds`; an ensemble's cost of a kind is the sum of its members'."""

    kinds: tuple[str, ...]
    values: Floats

    def limits(self, budget: Budget | None) -> Floats:
        """Return the bound per kind, infinite if unbounded. Raises SelectionError if the budget is invalid."""
        if budget is None:
            return np.full(len(self.kinds), np.inf)
        if isinstance(budget, Mapping):
            unknown = [kind for kind in budget if kind not in self.kinds]
            if unknown:
                raise SelectionError(f"budget on unknown cost {unknown[0]!r}: expected one of {', '.join(self.kinds)}")
            bounds = [budget.get(kind, np.inf) for kind in self.kinds]
        elif len(self.kinds) == 1:
            bounds = [budget]
        else:
            kinds = ", ".join(self.kinds)
            raise SelectionError(f"one budget for several costs ({kinds}): pass a mapping with a bound per kind")
        for kind, bound in zip(self.kinds, bounds, strict=True):
            if isinstance(bound, bool) or not isinstance(bound, int | float | np.number) or not bound > 0:
                raise SelectionError(f"budget {bound!r} {kind} is invalid: expected a number above 0")
        return np.array(bounds, dtype=np.float64)

    def fits(self, limits: Floats, used: Floats | None = None) -> NDArray[np.bool_]:
        """Return a mask of the members that fit into `limits` after `used` (kinds,)."""
        values = self.values if used is None else self.values + used
        return np.asarray((values <= limits * (1 + ROUNDING)).all(axis=1))

    def affordable(self, limits: Floats, members: Ints, most: int) -> int:
        """Return how many of `members` (at most `most`) fit `limits` if each kind counts its cheapest members."""
        totals = np.cumsum(np.sort(self.values[members], axis=0), axis=0)[:most]
        return int((totals <= limits * (1 + ROUNDING)).all(axis=1).sum())

    def leaves_room(self, limits: Floats, used: Floats, members: Ints, more: int) -> NDArray[np.bool_]:
        """Return a mask of the `members` that fit after `used` together with the `more` cheapest remaining members.

        With several kinds of cost the cheapest of each kind are counted, which need not be the same members.
        """
        values = self.values[members]
        cheapest = np.sort(values, axis=0)
        rest = cheapest[:more].sum(axis=0)
        # a member that is itself among the cheapest is replaced there by the next cheapest
        beyond = rest + cheapest[min(more, len(cheapest) - 1)]
        needs = used + np.maximum(values + rest, beyond if more < len(cheapest) else np.inf)
        return np.asarray((needs <= limits * (1 + ROUNDING)).all(axis=1))

    def shares(self, limits: Floats, used: Floats) -> Floats:
        """Return r = C/B with each member added (equation 2): the largest fraction of a budget, 0 if unbounded."""
        return np.asarray(((self.values + used) / limits).max(axis=1), dtype=np.float64)

    def total(self, members: Iterable[int]) -> Floats:
        """Return the sum (kinds,) over the distinct `members`."""
        distinct = list(dict.fromkeys(members))
        total: Floats = self.values[distinct].sum(axis=0)
        return total

    def named(self, total: Floats) -> dict[str, float]:
        """Return `total` as a mapping by kind."""
        return {kind: float(value) for kind, value in zip(self.kinds, total, strict=True)}


def round_budget(cost: float, digits: int = 2) -> float:
    """Round `cost` up to `digits` significant digits, for a budget that is easy to read and type."""
    return float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(cost))))


def read_costs(costs: ArrayLike | Mapping[str, ArrayLike] | None, budget: Budget | None, names: Sequence[str]) -> Costs:
    """Read costs (members,), (members, kinds) or a mapping of kinds; None: each member costs 1.

    A mapping `budget` names the columns of an array, in its order. Raises SelectionError naming the member with an
    invalid cost.
    """
    if isinstance(costs, Mapping):
        kinds = tuple(str(kind) for kind in costs)
        if not kinds:
            raise SelectionError("costs are an empty mapping: pass at least one kind, or None")
        columns = [_column(costs[kind], kind, len(names)) for kind in costs]
        values = np.stack(columns, axis=1)
    else:
        values = np.ones(len(names)) if costs is None else _numbers(costs, "costs")
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or len(values) != len(names) or not values.shape[1]:
            raise SelectionError(f"costs have shape {values.shape}: expected ({len(names)},) or ({len(names)}, kinds)")
        kinds = _kinds(values.shape[1], budget, "members" if costs is None else "cost")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)).all(axis=1))
    if len(wrong):
        shown = ", ".join(f"{v:g}" for v in values[wrong[0]])
        raise SelectionError(f"{names[wrong[0]]} costs {shown}: costs must be finite and not negative")
    return Costs(kinds, values)


def _kinds(count: int, budget: Budget | None, single: str) -> tuple[str, ...]:
    if isinstance(budget, Mapping):
        if len(budget) != count:
            raise SelectionError(f"{len(budget)} budgets for {count} columns of costs: pass one budget per column")
        return tuple(str(kind) for kind in budget)
    return (single,) if count == 1 else tuple(f"cost {k}" for k in range(count))


def _column(values: ArrayLike, kind: str, count: int) -> Floats:
    column = _numbers(values, f"costs of {kind!r}")
    if column.shape != (count,):
        raise SelectionError(f"costs of {kind!r} have shape {column.shape}: expected ({count},), one per member")
    return column


def _numbers(values: ArrayLike, name: str) -> Floats:
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise SelectionError(f"{name} contain masked values: give each member a cost")
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SelectionError(f"{name} are not numbers: {error}") from error
