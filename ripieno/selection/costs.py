"""Costs of members and budgets on their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Context
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.selection.least_costs import least_totals, least_totals_with_each
from ripieno.types import Floats, Ints

Budget = float | Mapping[str, float]
"""Seconds for 2,000 samples, or a bound for each of several kinds of cost."""
SharedCosts = Mapping[str, float | Mapping[str, float]]
"""Cost of each shared part by its name; a mapping of kinds where there are several."""
ROUNDING = 1e-9
"""Relative amount by which a sum of costs may exceed its budget: 0.1 + 0.2 + 0.3 fits 0.6."""


class CostSum(NamedTuple):
    """Cost of an ensemble."""

    total: Floats
    """(kinds,)"""
    paid: NDArray[np.bool_] | None = None
    """(members,), True for members whose shared part is in the total; None: no member shares a part"""


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs of members, and of parts that several members share, as heads share a backbone.

    An ensemble costs the sum of `values` over its distinct members and of `shared` over their distinct groups. So a
    member costs its shared part too unless the ensemble already has a member of its group.
    """

    kinds: tuple[str, ...]
    values: Floats
    """(members, kinds), without shared parts"""
    groups: Ints | None = None
    """(members,), row of `shared` by member; -1: it shares no part. None: no member shares one"""
    shared: Floats = field(default_factory=lambda: np.empty((0, 0)))
    """(groups, kinds)"""

    @cached_property
    def alone(self) -> Floats:
        """Costs (members, kinds) of each member alone, with its shared part."""
        if self.groups is None:
            return self.values
        nothing = np.zeros((1, len(self.kinds)))  # row -1
        shared: Floats = np.concatenate([self.shared, nothing])[self.groups]
        return self.values + shared

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

    @cached_property
    def nothing(self) -> CostSum:
        """Cost of no member, to extend."""
        paid = None if self.groups is None else np.zeros(len(self.groups), dtype=np.bool_)
        return CostSum(np.zeros(len(self.kinds)), paid)

    def take(self, members: Ints) -> Costs:
        """Return the costs of `members` alone, in their order."""
        groups = None if self.groups is None else self.groups[members]
        return replace(self, values=self.values[members], groups=groups)

    def total(self, members: Iterable[int]) -> Floats:
        """Return the cost (kinds,) of the distinct `members` together."""
        distinct = list(dict.fromkeys(members))
        total: Floats = self.values[distinct].sum(axis=0)
        if self.groups is not None:
            groups = sorted(set(self.groups[distinct].tolist()) - {-1})
            total = total + self.shared[groups].sum(axis=0)
        return total

    def sum_of(self, members: Iterable[int]) -> CostSum:
        """Return the cost of the distinct `members` together, to extend."""
        chosen = list(members)
        paid = None if self.groups is None else np.isin(self.groups, self.groups[chosen])
        return CostSum(self.total(chosen), paid)

    def extend(self, used: CostSum, member: int) -> CostSum:
        """Return the cost with one more member."""
        if used.paid is None or self.groups is None:
            return CostSum(used.total + self.values[member])
        own = self.values if used.paid[member] else self.alone
        return CostSum(used.total + own[member], used.paid | (self.groups == self.groups[member]))

    def with_each(self, used: CostSum, members: slice = slice(None)) -> Floats:
        """Return the cost (members, kinds) with each of `members` added."""
        own = self.values if used.paid is None else np.where(used.paid[:, None], self.values, self.alone)
        return own[members] + used.total

    def affordable(self, limits: Floats, members: Ints, most: int) -> int:
        """Return how many of `members` (at most `most`) fit `limits` if each kind counts its cheapest members."""
        totals = least_totals(self.values[members], self._groups(members), self.shared, most)[1:]
        return int(fits(totals, limits).sum())

    def leaves_room(self, limits: Floats, used: CostSum, members: Ints, more: int) -> NDArray[np.bool_]:
        """Return a mask of the `members` that fit after `used` together with the `more` cheapest remaining members.

        With several kinds of cost the cheapest of each kind are counted, which need not be the same members.
        """
        groups = self._groups(members, used)
        return fits(used.total + least_totals_with_each(self.values[members], groups, self.shared, more), limits)

    def _groups(self, members: Ints, used: CostSum | None = None) -> Ints | None:
        """Return the groups of `members`, -1 where no shared part is left to pay."""
        if self.groups is None:
            return None
        paid = False if used is None or used.paid is None else used.paid
        return np.where(paid, -1, self.groups)[members]

    def named(self, total: Floats) -> dict[str, float]:
        """Return `total` as a mapping by kind."""
        return {kind: float(value) for kind, value in zip(self.kinds, total, strict=True)}


def fits(totals: Floats, limits: Floats) -> NDArray[np.bool_]:
    """Return a mask of the `totals` (..., kinds) within `limits` (kinds,)."""
    return np.asarray((totals <= limits * (1 + ROUNDING)).all(axis=-1))


def budget_shares(totals: Floats, limits: Floats) -> Floats:
    """Return r = C/B of equation 2 for costs `totals` (..., kinds): the largest fraction of a budget."""
    return np.asarray((totals / limits).max(axis=-1), dtype=np.float64)


def round_budget(cost: float, digits: int = 2) -> float:
    """Round `cost` up to `digits` significant digits, for a budget that is easy to read and type."""
    return float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(cost))))


def read_costs(
    costs: ArrayLike | Mapping[str, ArrayLike] | None,
    budget: Budget | None,
    names: Sequence[str],
    shared: Sequence[str] | None = None,
    shared_costs: SharedCosts | None = None,
) -> Costs:
    """Read costs (members,), (members, kinds) or a mapping of kinds; None: each member costs 1.

    A mapping `budget` names the columns of an array, in its order. `shared` names the part that each member shares with
    others, "" none, and `shared_costs` gives the cost of each part. Raises SelectionError naming the member or the
    part with an invalid cost.
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
    if shared is None and shared_costs is None:
        return Costs(kinds, values)
    if costs is None:
        raise SelectionError("shared parts need costs of the members without these parts: pass costs")
    parts = _parts(shared, names)
    rows = _shared_costs(shared_costs or {}, [part for part in dict.fromkeys(parts) if part], kinds)
    if not rows:
        return Costs(kinds, values)
    numbers = {part: number for number, part in enumerate(rows)}
    groups = np.array([numbers.get(part, -1) for part in parts])
    return Costs(kinds, values, groups, np.stack(list(rows.values())))


def _parts(shared: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """Return the name of the part that each member shares. Raises SelectionError if `shared` is no list of names."""
    if shared is None:
        raise SelectionError("shared_costs without shared: pass the name of the part that each member shares")
    if isinstance(shared, str) or len(shared) != len(names):
        given = repr(shared) if isinstance(shared, str) else f"{len(shared)} names"
        raise SelectionError(f"shared is {given}: expected {len(names)} names, one per member, '' for none")
    wrong = [(name, part) for name, part in zip(names, shared, strict=True) if not isinstance(part, str)]
    if wrong:
        raise SelectionError(f"{wrong[0][0]} shares {wrong[0][1]!r}: expected the name of a part, '' for none")
    return list(shared)


def _shared_costs(shared_costs: SharedCosts, parts: Sequence[str], kinds: Sequence[str]) -> dict[str, Floats]:
    """Return the costs (kinds,) of each of `parts`. Raises SelectionError for a missing or an invalid cost."""
    if not isinstance(shared_costs, Mapping):
        raise SelectionError(f"shared_costs is {shared_costs!r}: expected a mapping of the names of shared parts")
    unknown = [part for part in shared_costs if part not in parts]
    if unknown:
        known = f"expected one of {', '.join(parts)}" if parts else "no member shares any part"
        raise SelectionError(f"shared_costs has the unknown part {unknown[0]!r}: {known}")
    rows = {}
    for part in parts:
        if part not in shared_costs:
            raise SelectionError(f"shared part {part!r} has no cost: add it to shared_costs")
        cost = shared_costs[part]
        if not isinstance(cost, Mapping) and len(kinds) > 1:
            kinds_ = ", ".join(kinds)
            raise SelectionError(f"shared part {part!r} has one cost for several kinds ({kinds_}): pass a mapping")
        by_kind = cost if isinstance(cost, Mapping) else {kinds[0]: cost}
        if set(by_kind) != set(kinds):
            raise SelectionError(
                f"shared part {part!r} has costs in {', '.join(map(str, by_kind)) or 'nothing'}: "
                f"expected {' and '.join(kinds)}, as of the members"
            )
        row = _numbers([by_kind[kind] for kind in kinds], f"costs of shared part {part!r}")
        if row.shape != (len(kinds),) or not (np.isfinite(row) & (row >= 0)).all():
            raise SelectionError(f"shared part {part!r} costs {cost!r}: costs must be finite and not negative")
        rows[part] = row
    return rows


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
