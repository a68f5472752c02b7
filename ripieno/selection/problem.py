"""Selection problem: the input of every method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.selection.costs import Costs, budget_shares, fits
from ripieno.selection.member_data import MemberData
from ripieno.selection.tree import Objective, Tree
from ripieno.types import Floats, Ints

PRUNE_LEAST = 20
"""Minimum number of members after pruning: the paper prunes libraries of hundreds; a fifth of 30 would be too few."""

Members = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SelectionProblem:
    """A library as arrays: ensembles evaluated so far, costs and the options of one call."""

    tree: Tree[Any]
    costs: Costs
    names: Sequence[str]
    weights: tuple[float, ...]
    prune: float
    size: int | None
    starts: int
    """number of networks with which `smobf-r` also starts"""
    data: MemberData
    objective: Callable[[MemberData], Objective[Any]]
    """builds the objective, for the data without a fold too"""
    unit: float = 1.0
    """loss that counts like one nat: of a regression, that of a constant prediction"""

    def without(self, fold: NDArray[np.bool_]) -> SelectionProblem:
        """Return the problem without the samples of a `fold`, a mask (samples,)."""
        data = self.data.without(fold)
        return replace(self, data=data, tree=Tree(self.objective(data)))

    def candidates(self, limits: Floats) -> Ints:
        """Return the members to consider, ascending: they fit the budget alone; pruned by own loss (section 3.3.1).

        `prune` of the whole library remain, but at least `PRUNE_LEAST`. Members that are too expensive alone are
        removed first, so that pruning never removes all affordable members. Raises SelectionError if nothing fits.
        """
        fitting = np.flatnonzero(fits(self.costs.alone, limits))
        if not len(fitting):
            raise SelectionError(self._nothing_fits(limits))
        keep = max(math.ceil(self.prune * len(self.names)), PRUNE_LEAST)
        order = np.argsort(self.tree.singles()[fitting], kind="stable")
        return np.sort(fitting[order[:keep]])

    def order(self, limits: Floats) -> Ints:
        """Return `candidates`, lowest own loss first (ties: the cheaper, then the lowest index)."""
        candidates = self.candidates(limits)
        shares = budget_shares(self.costs.alone, limits)[candidates]
        return candidates[np.lexsort((candidates, shares, self.tree.singles()[candidates]))]

    def loss(self, members: Members) -> float:
        """Return the loss of the mean of `members`, added in that order."""
        return self.tree.at(members).loss

    def is_feasible(self, members: Members, limits: Floats) -> bool:
        """Return whether the distinct members are within the budget."""
        return bool(fits(self.costs.total(members), limits))

    def best(self, ensembles: Sequence[Members]) -> Members:
        """Return the best of several ensembles; costs are summed only for those of the lowest loss."""
        losses = [self.loss(members) for members in ensembles]
        lowest = min(losses)
        return min((m for m, loss in zip(ensembles, losses, strict=True) if loss == lowest), key=self.sort_key)

    def ranked(self, ensembles: Collection[Members]) -> list[Members]:
        """Return ensembles in the order of `sort_key`, which is computed for those of equal loss only."""
        pairs = sorted((self.loss(members), members) for members in ensembles)
        groups = (list(group) for _, group in itertools.groupby(pairs, key=lambda pair: pair[0]))
        ordered = (group if len(group) == 1 else sorted(group, key=lambda p: self.sort_key(p[1])) for group in groups)
        return [members for group in ordered for _, members in group]

    def sort_key(self, members: Members) -> tuple[float, ...]:
        """Return the sort key of ensembles: lower loss, then lower costs, then fewer members."""
        return (self.loss(members), *self.costs.total(members).tolist(), len(members))

    def _nothing_fits(self, limits: Floats) -> str:
        if len(limits) == 1:
            cheapest = int(self.costs.alone[:, 0].argmin())
            cost = self.costs.alone[cheapest, 0]
            return f"no member fits a budget of {limits[0]:g}: the cheapest, {self.names[cheapest]}, costs {cost:g}"
        shares = budget_shares(self.costs.alone, limits)
        cheapest = int(shares.argmin())
        costs = zip(self.costs.kinds, self.costs.alone[cheapest], limits, strict=True)
        shown = ", ".join(f"{cost:g} of {limit:g} {kind}" for kind, cost, limit in costs)
        return f"no member fits the budgets: the cheapest, {self.names[cheapest]}, costs {shown}"
