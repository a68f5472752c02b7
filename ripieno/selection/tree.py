"""Greedy steps over ensembles, remembering every ensemble met.

Theory of operation. A greedy run is a path in the tree of ordered ensembles: the root is empty, a child has one member
more. Runs with other weights or budgets walk the same tree, mostly along the same first steps, so each node keeps what
was learnt there: the losses of its children evaluated so far, and floors under the others. A step takes the child with
the lowest `slope * loss + extra`: children are looked at in the order of their floors, until the next floor is above
the best found. The result is the one a look at all children gives, to the bit: a tie goes to the lowest index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from ripieno.selection.objective import Floats, Ints, Objective, ParentBounds, S

CHUNK = 24
"""Children evaluated together at first; doubled at each further look."""
UNKNOWN = -1e300
"""A floor that says nothing: finite, so that a slope of zero leaves zero."""
STATE_BYTES = 256 << 20
"""States kept; older ones are built anew when a run comes by again."""


@dataclass(eq=False)
class SearchNode(Generic[S]):
    """An ensemble met: `members` in the order chosen, its `loss`."""

    members: tuple[int, ...]
    loss: float
    known: Floats
    """loss with each further member; NaN where not evaluated"""
    state: S | None = None
    floors: Floats | None = None


class Tree(Generic[S]):
    """The ensembles met by any number of runs over one objective.

    `bounded` False evaluates every child at every step, which changes nothing but the time.
    """

    def __init__(self, objective: Objective[S], bounded: bool = True) -> None:
        self.objective = objective
        self.bounded = bounded
        self.root: SearchNode[S] = SearchNode((), np.inf, np.full(objective.size, np.nan), objective.state(()))
        self.nodes: dict[tuple[int, ...], SearchNode[S]] = {(): self.root}
        self._held: list[SearchNode[S]] = []
        self._most = max(2, STATE_BYTES // max(1, objective.nbytes()))
        self.evaluations = 0

    def singles(self) -> Floats:
        """Loss of every member alone."""
        self._evaluate(self.root, np.flatnonzero(np.isnan(self.root.known)))
        return self.root.known

    def child(self, node: SearchNode[S], member: int) -> SearchNode[S]:
        """The ensemble with one member more."""
        members = (*node.members, member)
        if members not in self.nodes:
            if np.isnan(node.known[member]):
                self._evaluate(node, np.array([member]))
            known = np.full(self.objective.size, np.nan)
            self.nodes[members] = SearchNode(members, float(node.known[member]), known)
        return self.nodes[members]

    def at(self, members: tuple[int, ...]) -> SearchNode[S]:
        """The ensemble of `members`, in their order."""
        known = len(members)
        while known and members[:known] not in self.nodes:
            known -= 1
        node = self.nodes[members[:known]] if known else self.root
        for member in members[known:]:
            node = self.child(node, member)
        return node

    def step(self, node: SearchNode[S], candidates: Ints, slope: float, extra: Floats, ceiling: float) -> int | None:
        """Candidate (ascending) of lowest `slope * loss + extra` if that is below `ceiling`, else None."""
        known = node.known[candidates]
        new = np.isnan(known)
        low = slope * (np.where(new, self._floors(node)[candidates], known) if new.any() else known) + extra
        order = np.argsort(low, kind="stable")
        best, winner, start, size = ceiling, -1, 0, CHUNK if self.bounded else len(order)
        while start < len(order) and low[order[start]] <= best:
            part = order[start : start + size]
            part = part[low[part] <= best]
            self._evaluate(node, candidates[part[new[part]]])
            scores = slope * node.known[candidates[part]] + extra[part]
            lowest = scores.min()
            first = int(part[scores == lowest].min())
            if lowest < best or (lowest == best and winner >= 0 and first < winner):
                best, winner = float(lowest), first
            start, size = start + size, 2 * size
        return int(candidates[winner]) if winner >= 0 else None

    def _evaluate(self, node: SearchNode[S], candidates: Ints) -> None:
        if len(candidates):
            self.evaluations += len(candidates)
            node.known[candidates] = self.objective.losses(self._state(node), candidates)

    def _floors(self, node: SearchNode[S]) -> Floats:
        if not self.bounded:
            return np.full(self.objective.size, UNKNOWN)
        if node.floors is None:
            node.floors = self.objective.lower_bounds(self._state(node), node.loss, self._above(node))
        return node.floors

    def _above(self, node: SearchNode[S]) -> ParentBounds | None:
        parent = self.nodes.get(node.members[:-1])
        if not self.objective.submodular or parent is None or not parent.members:
            return None
        new = np.isnan(parent.known)
        return ParentBounds(
            parent.loss, np.where(new, self._floors(parent), parent.known) if new.any() else parent.known
        )

    def _state(self, node: SearchNode[S]) -> S:
        if node.state is None:
            parent = self.nodes.get(node.members[:-1])
            if parent is not None and parent.state is not None:
                node.state = self.objective.extend(parent.state, node.members[-1])
            else:
                node.state = self.objective.state(node.members)
            self._held.append(node)
            if len(self._held) > self._most:
                self._held.pop(0).state = None
        return node.state
