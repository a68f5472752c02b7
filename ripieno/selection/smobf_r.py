"""SMOBF with replacement: equation 2 (section 2.1), in which a member may be picked again and then has more weight."""

from __future__ import annotations

import numpy as np

from ripieno.selection.problem import Members, SelectionProblem
from ripieno.types import Floats, Ints

PICKS = 50
"""Maximum number of picks of a run."""
GAIN = 0.0
PATIENCE = 8
"""Number of picks without a lower loss after which a run stops: a repeat disturbs equal weights before it helps."""


def smobf_r(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Return the best prefix of each greedy run: one run per weight w and start; the caller keeps the best.

    A run starts with no member or with one of the `problem.starts` affordable networks of lowest own loss. Without
    these starts, an expensive first pick can use up a budget that two cheaper members would use better.
    """
    candidates = problem.candidates(limits)
    starts: list[Members] = [(), *((int(m),) for m in problem.order(limits)[: problem.starts])]
    visited: set[tuple[float | None, Members]] = set()
    runs = (_run(problem, limits, candidates, w, start, visited) for w in problem.weights for start in starts)
    return [best for best in runs if best]


def _run(
    problem: SelectionProblem,
    limits: Floats,
    candidates: Ints,
    w: float,
    start: Members,
    visited: set[tuple[float | None, Members]],
) -> Members:
    """Pick the member of lowest score (1 - w) * E + w * C/B, `PICKS` times at most; a repeat adds no cost.

    Return the prefix of lowest loss. The run ends where an earlier one passed: from there both would pick the same.
    """
    tree = problem.tree
    node, chosen = tree.at(start), np.isin(candidates, start)
    used = problem.costs.total(start)
    best, waited, mark = node, 0, np.inf
    nothing = np.zeros(len(candidates))
    while len(node.members) < PICKS and waited < PATIENCE:
        affordable = problem.costs.fits(limits, used)[candidates] & ~chosen
        if problem.size is not None and np.count_nonzero(chosen) >= problem.size:
            affordable[:] = False
        # once no new member fits, all weights w rank the members alike
        state = (w if affordable.any() else None, node.members)
        if state in visited:
            break
        visited.add(state)
        left = affordable | chosen
        if state[0] is None:
            slope, extra = 1.0, nothing
        else:
            current = float((used / limits).max())
            slope, extra = 1 - w, w * np.where(chosen, current, problem.costs.shares(limits, used)[candidates])
        member = tree.step(node, candidates[left], slope, extra[left], np.inf)
        assert member is not None  # members of the ensemble always fit
        node = tree.merged_child(node, member)
        position = int(np.searchsorted(candidates, member))
        if not chosen[position]:
            chosen[position], used = True, used + problem.costs.values[member]
        waited = 0 if node.loss < mark - GAIN else waited + 1
        mark = node.loss if waited == 0 else mark
        best = node if node.loss < best.loss else best
    return best.members
