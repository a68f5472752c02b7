"""What a paused trial is worth to the best ensemble under a budget: which trial a search may train on for it.

Theory of operation. The members told of so far are a library as selection sees it: a row of true-class probabilities
and a cost each. SMOBF chooses the best ensemble of them under the budget, once for every result that comes in. What a
paused trial is worth is the cross-entropy of that ensemble with the trial's newest member added, as in one greedy step;
where they cost too much together, members chosen last make room. A member that is in the ensemble gets a second vote,
at no cost. A trial too dear for the budget alone is never promoted. Nothing else is asked, so the same results in the
same order give the same numbers, and a search that goes on needs none of those it went by before: its journal has them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.models.resnet_flops import megaflops
from ripieno.selection import select_members
from ripieno.selection.costs import ROUNDING
from ripieno.selection.cross_entropy import CrossEntropy
from ripieno.types import Job, Member

if TYPE_CHECKING:
    from ripieno.search.asha import RungResult

Price = Callable[[Member], Sequence[float]]
"""What a member costs, a number for each kind that is bounded."""


class EnsemblePromotionScore:
    """A `Worth` from the members of `library`, whose ensemble costs at most `budget`; finds members by themselves."""

    def __init__(self, library: Library, price: Price, budget: Mapping[str, float]) -> None:
        self._library = library
        self._price = price
        self._budget = dict(budget)
        self._limits = np.array(list(budget.values())) * (1 + ROUNDING)
        self._read = 0  # results looked at
        self._rows: dict[RungResult, int] = {}
        self._truth: NDArray[np.float32] = np.empty((0, 0), np.float32)  # twice as many rows as there are, at most
        self._costs: list[Sequence[float]] = []
        self._chosen: tuple[int, ...] = ()
        self._known: dict[RungResult, float] = {}  # since the last result
        self.selections = 0
        self.seconds = 0.0
        """spent here, in all"""

    def __call__(self, told: Sequence[RungResult], waiting: Sequence[RungResult]) -> list[float]:
        """Cross-entropy of the ensemble with each of `waiting`; infinite where that is not to be."""
        started = time.perf_counter()
        if len(told) > self._read:
            self._learn(told[self._read :])
            self._read = len(told)
            self._known = {}
            self._chosen = self._ensemble()
        unknown = [one for one in waiting if one not in self._known]
        self._known |= zip(unknown, self._values([self._rows.get(one) for one in unknown]), strict=True)
        self.seconds += time.perf_counter() - started
        return [self._known[one] for one in waiting]

    def said(self) -> str:
        """How much it took, in words."""
        each = 1000 * self.seconds / max(1, self.selections)
        return f"promoted for the ensemble: {self.selections} selections of {each:.1f} ms"

    def _learn(self, told: Sequence[RungResult]) -> None:
        """Read the members that were told of; one that was removed since is left out."""
        for trial, epoch in told:
            name = Job(trial, {}, 0, epoch).member
            if name not in self._library:
                continue
            row, place = self._library.true_class_probabilities([name])[0], len(self._costs)
            if place == len(self._truth):
                grown = np.empty((max(16, 2 * place), len(row)), np.float32)
                grown[:place] = self._truth.reshape(place, len(row))
                self._truth = grown
            self._truth[place] = row
            self._costs.append(self._price(self._library.member(name)))
            self._rows[trial, epoch] = place

    def _ensemble(self) -> tuple[int, ...]:
        """Rows of the best ensemble's members, in the order chosen; none while nothing fits the budget."""
        costs = np.array(self._costs, dtype=np.float64).reshape(-1, len(self._limits))
        if not (costs <= self._limits).all(axis=1).any():
            return ()
        self.selections += 1
        kinds = {kind: costs[:, i] for i, kind in enumerate(self._budget)}
        return select_members(self._truth[: len(costs)], None, kinds, self._budget).members

    def _values(self, rows: Sequence[int | None]) -> NDArray[np.float64]:
        values = np.full(len(rows), math.inf)
        found = np.array([row is not None for row in rows], dtype=bool)
        members = np.array([row for row in rows if row is not None], dtype=np.int64)
        if len(members):
            values[found] = self._losses(members)
        return values

    def _losses(self, members: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cross-entropy of the ensemble with each of `members`, less those chosen last that leave no room for it."""
        objective = CrossEntropy(self._truth[: len(self._costs)])
        losses = np.full(len(members), math.inf)
        kept = self._kept(members)
        for first in set(kept.tolist()) - {-1}:
            state = objective.state(self._chosen[:first])
            losses[kept == first] = objective.losses(state, members[kept == first])
        return losses

    def _kept(self, members: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the ensemble, in the order chosen, leave room for each of `members`; -1: it fits not alone."""
        costs, chosen = np.array(self._costs, dtype=np.float64), list(self._chosen)
        paid = np.concatenate([np.zeros((1, costs.shape[1])), costs[chosen].cumsum(axis=0)])
        fits = (paid[None] + costs[members][:, None] <= self._limits).all(axis=2)
        kept = fits.sum(axis=1) - 1  # paid only grows
        kept[np.isin(members, chosen)] = len(chosen)  # paid for already
        return np.asarray(kept, dtype=np.int64)


def make_promotion_score(library: Library, family: str, budget: Mapping[str, float]) -> EnsemblePromotionScore:
    """Worth by kinds of cost that need no measuring: `parameters`, and `flops` of the built-in family.

    Raises SearchError for any other kind, for a search measures nothing while it trains, and for a bound not above 0.
    """
    known = {"parameters": _parameters, **({"flops": _flops} if family == "resnet" else {})}
    unknown = [kind for kind in budget if kind not in known]
    if unknown:
        raise SearchError(
            f"a search of {family} cannot bound {unknown[0]}: while it trains it counts {' and '.join(sorted(known))} "
            f"and measures nothing, as in --budget {sorted(known)[0]}=40M"
        )
    for kind, bound in budget.items():
        if not bound > 0:
            raise SearchError(f"budget {kind}={bound:g}: it must be more than 0")
    prices = [known[kind] for kind in budget]
    return EnsemblePromotionScore(library, lambda member: [price(member) for price in prices], budget)


def _parameters(member: Member) -> float:
    return float(member.parameters)


def _flops(member: Member) -> float:
    """As `onnx_flops` counts them, less the classifier."""
    return 2e6 * megaflops(member.configuration, member.input)
