"""What every method works on: ensembles met so far, costs and options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ripieno.errors import SelectionError
from ripieno.selection.costs import ROUNDING, Costs
from ripieno.selection.objective import Floats, Ints
from ripieno.selection.tree import Tree

PRUNE_LEAST = 20
"""Members that pruning leaves at least: the paper prunes libraries of hundreds, a fifth of 30 would starve a search."""

Members = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SelectionProblem:
    """A library as arrays with the options of one call."""

    tree: Tree[Any]
    costs: Costs
    names: Sequence[str]
    weights: tuple[float, ...]
    prune: float
    size: int | None

    def candidates(self, limits: Floats) -> Ints:
        """Members worth a look, ascending: those that fit the budget alone, pruned by their own loss (section 3.3.1).

        As many stay as `prune` of the whole library, but at least `PRUNE_LEAST`. Members too expensive alone go
        first, so that a small budget never prunes away all it could buy. Raises SelectionError when nothing fits.
        """
        fitting = np.flatnonzero(self.costs.fits(limits))
        if not len(fitting):
            raise SelectionError(self._nothing_fits(limits))
        keep = max(math.ceil(self.prune * len(self.names)), PRUNE_LEAST)
        order = np.argsort(self.tree.singles()[fitting], kind="stable")
        return np.sort(fitting[order[:keep]])

    def order(self, limits: Floats) -> Ints:
        """`candidates`, lowest own loss first (ties: the cheaper, then the lowest index)."""
        candidates = self.candidates(limits)
        shares = self.costs.shares(limits, np.zeros(len(limits)))[candidates]
        return candidates[np.lexsort((candidates, shares, self.tree.singles()[candidates]))]

    def loss(self, members: Members) -> float:
        """Loss of the mean of `members`, added in that order."""
        return self.tree.at(members).loss

    def is_feasible(self, members: Members, limits: Floats) -> bool:
        """Whether the distinct members keep the budget."""
        return bool((self.costs.total(members) <= limits * (1 + ROUNDING)).all())

    def best(self, found: Sequence[Members]) -> Members:
        """The best of several ensembles; what they cost is added up only for those of the lowest loss."""
        losses = [self.loss(members) for members in found]
        lowest = min(losses)
        return min((m for m, loss in zip(found, losses, strict=True) if loss == lowest), key=self.sort_key)

    def sort_key(self, members: Members) -> tuple[float, ...]:
        """Sort key of ensembles: the lower loss, then the cheaper, then the fewer."""
        return (self.loss(members), *self.costs.total(members).tolist(), len(members))

    def _nothing_fits(self, limits: Floats) -> str:
        if len(limits) == 1:
            cheapest = int(self.costs.values[:, 0].argmin())
            price = self.costs.values[cheapest, 0]
            return f"no member fits a budget of {limits[0]:g}: the cheapest, {self.names[cheapest]}, costs {price:g}"
        shares = self.costs.shares(limits, np.zeros(len(limits)))
        cheapest = int(shares.argmin())
        spent = zip(self.costs.kinds, self.costs.values[cheapest], limits, strict=True)
        prices = ", ".join(f"{price:g} of {limit:g} {kind}" for kind, price, limit in spent)
        return f"no member fits the budgets: the cheapest, {self.names[cheapest]}, costs {prices}"
