"""Selection of ensembles of policies by the returns of episodes.

What an ensemble of policies returns does not follow from its members: it is seen in rollouts. A function of the caller
runs them, for all candidates of a step at once. The candidates of a budget are nested: the best policies by their own
returns, 1 to `SIZE` of them, each added where it still fits. From the best of these a greedy search with replacement
goes on: it adds the policy, which may be a member already, whose ensemble has the highest mean return, while that
rises. A greedy search from nothing ends at one policy, since two that vote tie.

All budgets of a call share their candidates, so that a larger budget never has a lower return.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.errors import SelectionError
from ripieno.selection.choice import Choice
from ripieno.types import Combiner, Floats

SIZE = 8
"""Largest number of picks of an ensemble."""
POOL = 16
"""Number of policies, the best by their own returns, that the greedy search considers at a budget."""

Picks = tuple[int, ...]
"""Policies by index, in the order chosen; one that stands twice has twice the weight."""


@dataclass(frozen=True)
class PolicyCandidate:
    """Ensemble of policies and the rule that combines them."""

    picks: Picks
    rule: Combiner

    @property
    def weights(self) -> dict[int, float]:
        """Weight of each policy; the sum is 1."""
        return {policy: count / len(self.picks) for policy, count in Counter(self.picks).items()}


Rollout = Callable[[Sequence[PolicyCandidate]], Floats]
"""From candidates to the returns of their episodes, (candidates, episodes)."""


class ReturnSelection:
    """Selection among policies with `returns` (policies, episodes), by rollouts of a caller.

    `rules` gives the rules that fit some policies, `cost` the cost of some by kind; `rollout` runs candidates.
    """

    def __init__(
        self,
        returns: Floats,
        rules: Callable[[Picks], Sequence[Combiner]],
        cost: Callable[[Iterable[int]], Mapping[str, float]],
        rollout: Rollout,
        *,
        size: int = SIZE,
        greedy: bool = True,
    ):
        self.own = np.asarray(returns, np.float64).mean(axis=1)
        self.rules, self.cost, self.rollout = rules, cost, rollout
        self.size, self.greedy = size, greedy
        self.found: dict[PolicyCandidate, Floats] = {}
        """returns by candidate, of all that ran"""

    def select(self, budgets: Sequence[Mapping[str, float]]) -> list[Choice]:
        """Return the ensemble of the highest mean return within each budget; ties go to the cheaper one.

        Raises SelectionError where no policy fits a budget.
        """
        pools = [self._ranked(budget) for budget in budgets]
        chains = [self._nested(pool, budget) for pool, budget in zip(pools, budgets, strict=True)]
        self._run(picks for chain in chains for picks in chain)
        if self.greedy:
            self._grow([pool[:POOL] for pool in pools], budgets)
        return [self._choice(self._best(budget)) for budget in budgets]

    def front(self, kind: str, points: int) -> list[Choice]:
        """Return the best ensembles by return and the cost `kind`, for `points` budgets at most, the cheapest first."""
        alone = [self.cost((policy,))[kind] for policy in range(len(self.own))]
        ranked = self._ranked({})
        most = self.cost(ranked[: self.size])[kind]
        low = min(alone)
        limits = np.geomspace(low, most, points) if 0 < low < most else np.linspace(low, most, points)
        chosen = self.select([{kind: float(limit) * (1 + 1e-9)} for limit in dict.fromkeys(limits.tolist())])
        front: list[Choice] = []
        for choice in chosen:
            if not front or choice.loss < front[-1].loss:
                front.append(choice)
        return front

    def _fits(self, picks: Iterable[int], budget: Mapping[str, float]) -> bool:
        cost = self.cost(picks)
        return all(cost[kind] <= limit for kind, limit in budget.items())

    def _ranked(self, budget: Mapping[str, float]) -> list[int]:
        """Return the policies that fit alone, the highest own return first (ties: the cheaper, then the first)."""
        fitting = [policy for policy in range(len(self.own)) if self._fits((policy,), budget)]
        if not fitting:
            bounds = " and ".join(f"{limit:g} {kind}" for kind, limit in budget.items())
            kind = next(iter(budget))
            least = min(self.cost((policy,))[kind] for policy in range(len(self.own)))
            raise SelectionError(f"no policy fits the budget of {bounds}: the cheapest needs {least:.3g} {kind}")
        return sorted(fitting, key=lambda policy: (-self.own[policy], *self.cost((policy,)).values(), policy))

    def _nested(self, pool: Sequence[int], budget: Mapping[str, float]) -> list[Picks]:
        """Return the nested ensembles of the best policies that fit together."""
        chain: list[Picks] = []
        picks: Picks = ()
        for policy in pool:
            if len(picks) < self.size and self._fits((*picks, policy), budget):
                picks = (*picks, policy)
                chain.append(picks)
        return chain

    def _run(self, ensembles: Iterable[Picks]) -> None:
        """Run the ensembles that have not run yet, each by all rules that fit it; of one policy all rules are one."""
        asked = [
            PolicyCandidate(picks, rule)
            for picks in dict.fromkeys(ensembles)
            for rule in self.rules(picks)[: 1 if len(set(picks)) == 1 else None]
        ]
        if new := [candidate for candidate in asked if candidate not in self.found]:
            self.found.update(zip(new, self.rollout(new), strict=True))

    def _grow(self, pools: Sequence[Sequence[int]], budgets: Sequence[Mapping[str, float]]) -> None:
        """Add policies to the best ensemble of each budget while the mean return rises, all budgets in step."""
        current = [self._best(budget) for budget in budgets]
        active = set(range(len(budgets)))
        while active:
            steps = {
                index: [
                    picks
                    for policy in pools[index]
                    if self._fits(picks := (*current[index].picks, policy), budgets[index])
                ]
                for index in active
                if len(current[index].picks) < self.size
            }
            self._run(picks for found in steps.values() for picks in found)
            active = set()
            for index, asked in steps.items():
                within = [c for c in self.found if c.picks in set(asked)]
                best = min(within, key=self._key, default=current[index])
                if self.found[best].mean() > self.found[current[index]].mean():
                    current[index] = best
                    active.add(index)

    def _best(self, budget: Mapping[str, float]) -> PolicyCandidate:
        """Return the best candidate that ran and is within the budget."""
        return min((c for c in self.found if self._fits(c.picks, budget)), key=self._key)

    def _key(self, candidate: PolicyCandidate) -> tuple[object, ...]:
        """Return the key of sorting: the highest mean return, then the cheapest, the smallest, and the first."""
        cost = tuple(self.cost(candidate.picks).values())
        return (-float(self.found[candidate].mean()), *cost, len(candidate.picks), candidate.picks)

    def _choice(self, candidate: PolicyCandidate) -> Choice:
        weights = candidate.weights
        equal = len(set(weights.values())) == 1
        cost = dict(self.cost(candidate.picks))
        return Choice(
            members=tuple(weights),
            weights=tuple(weights.values()),
            loss=-float(self.found[candidate].mean()),
            cost=next(iter(cost.values())),
            costs=cost,
            combiner="weighted" if candidate.rule == "mean" and not equal else candidate.rule,
            steps=candidate.picks,
            task="policy",
        )
