"""Search tree of greedy runs, which caches every evaluated ensemble.

Theory of operation. A greedy run is a path in the tree of ordered ensembles: the root is empty, a child has one more
member. Runs with other weights or budgets share the tree and mostly the first steps. So each node caches the losses of
its evaluated children and lower bounds of the remaining ones. A step selects the child of lowest
`slope * loss + extra`: children are evaluated in the order of their bounds until the next bound exceeds the best score.
The result is bit-identical to that of evaluating all children; ties go to the lowest index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from ripieno.types import Floats, Ints

S = TypeVar("S")
CHUNK = 24
"""Children evaluated in the first batch; doubled for each further batch."""
FEW = 2 * CHUNK
"""Children evaluated at once, because bounds would cost more than their losses in memory."""
UNKNOWN = -1e300
"""A lower bound without information: finite, so that its product with a slope of zero is zero."""
STATE_BYTES = 256 << 20
"""Bytes of cached states; older states are rebuilt when needed."""


class ParentBounds(NamedTuple):
    """Bounds from the ensemble without its last member: its loss, and lower bounds with each further member."""

    loss: float
    lower_bounds: Floats


class Objective(Protocol[S]):
    """Loss of ensembles of `size` candidate members. A state `S` describes an ensemble and is immutable."""

    size: int
    submodular: bool
    """true if a member's gain falls as the ensemble grows, so that old gains bound new ones"""

    def state(self, members: tuple[int, ...]) -> S:
        """Build the state of an ensemble from scratch; members may repeat."""
        ...

    def extend(self, state: S, member: int) -> S:
        """Return the state with one more member, bit-identical to `state` of the same members in the same order."""
        ...

    def losses(self, state: S, candidates: Ints) -> Floats:
        """Return the loss with each of `candidates` added; the bits do not depend on the other candidates."""
        ...

    def lower_bounds(self, state: S, loss: float, above: ParentBounds | None, /) -> Floats:
        """Return a lower bound of `losses` for every member; `loss` is that of the ensemble itself."""
        ...

    def nbytes(self) -> int:
        """Return the bytes of one state."""
        ...


@dataclass(eq=False)
class SearchNode(Generic[S]):
    """An evaluated ensemble: its `members` in the order chosen, and its `loss`."""

    members: tuple[int, ...]
    loss: float
    known: Floats
    """loss with each further member; NaN if not evaluated"""
    state: S | None = None
    lower_bounds: Floats | None = None


class Tree(Generic[S]):
    """The ensembles evaluated by any number of runs over one objective.

    `bounded` False evaluates every child at every step, which changes only the run time.
    """

    def __init__(self, objective: Objective[S], bounded: bool = True) -> None:
        self.objective = objective
        self.bounded = bounded
        self.root: SearchNode[S] = SearchNode((), np.inf, np.full(objective.size, np.nan), objective.state(()))
        self.nodes: dict[tuple[int, ...], SearchNode[S]] = {(): self.root}
        self._merged: dict[tuple[int, ...], SearchNode[S]] = {}
        """first node with the same members in any order, by the sorted members"""
        self._cached: list[SearchNode[S]] = []
        self._few = CHUNK if objective.submodular else FEW
        self._most = max(2, STATE_BYTES // max(1, objective.nbytes()))
        self.evaluations = 0

    def singles(self) -> Floats:
        """Return the loss of every member alone."""
        self._evaluate(self.root, np.flatnonzero(np.isnan(self.root.known)))
        return self.root.known

    def child(self, node: SearchNode[S], member: int) -> SearchNode[S]:
        """Return the ensemble with one more member."""
        members = (*node.members, member)
        if members not in self.nodes:
            if np.isnan(node.known[member]):
                self._evaluate(node, np.array([member]))
            known = np.full(self.objective.size, np.nan)
            self.nodes[members] = SearchNode(members, float(node.known[member]), known)
        return self.nodes[members]

    def merged_child(self, node: SearchNode[S], member: int) -> SearchNode[S]:
        """Return the ensemble with one more member, in the order of picks in which it was first evaluated."""
        key = tuple(sorted((*node.members, member)))
        if key not in self._merged:
            self._merged[key] = self.child(node, member)
        return self._merged[key]

    def at(self, members: tuple[int, ...]) -> SearchNode[S]:
        """Return the ensemble of `members`, in their order."""
        known = len(members)
        while known and members[:known] not in self.nodes:
            known -= 1
        node = self.nodes[members[:known]] if known else self.root
        for member in members[known:]:
            node = self.child(node, member)
        return node

    def step(self, node: SearchNode[S], candidates: Ints, slope: float, extra: Floats, ceiling: float) -> int | None:
        """Return the candidate (ascending) of lowest `slope * loss + extra` if below `ceiling`, else None."""
        if not len(candidates):
            return None
        known = node.known[candidates]
        new = np.isnan(known)
        unknown = int(np.count_nonzero(new))
        if 0 < unknown <= self._few:
            self._evaluate(node, candidates[new])
            known, unknown = node.known[candidates], 0
        if not unknown:
            scores = slope * known + extra
            first = int(scores.argmin())
            return int(candidates[first]) if scores[first] < ceiling else None
        low = slope * np.where(new, self._lower_bounds(node)[candidates], known) + extra
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

    def _lower_bounds(self, node: SearchNode[S]) -> Floats:
        if not self.bounded:
            return np.full(self.objective.size, UNKNOWN)
        if node.lower_bounds is None:
            node.lower_bounds = self.objective.lower_bounds(self._state(node), node.loss, self._parent_bounds(node))
        return node.lower_bounds

    def _parent_bounds(self, node: SearchNode[S]) -> ParentBounds | None:
        parent = self.nodes.get(node.members[:-1])
        if not self.objective.submodular or parent is None or not parent.members:
            return None
        new = np.isnan(parent.known)
        return ParentBounds(
            parent.loss, np.where(new, self._lower_bounds(parent), parent.known) if new.any() else parent.known
        )

    def _state(self, node: SearchNode[S]) -> S:
        if node.state is None:
            parent = self.nodes.get(node.members[:-1])
            if parent is not None and parent.state is not None:
                node.state = self.objective.extend(parent.state, node.members[-1])
            else:
                node.state = self.objective.state(node.members)
            self._cached.append(node)
            if len(self._cached) > self._most:
                self._cached.pop(0).state = None
        return node.state
