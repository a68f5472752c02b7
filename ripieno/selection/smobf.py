"""SMOBF: scalarised multi-objective budgeted forward greedy (section 2.1, equation 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ripieno.selection.costs import CostSum, budget_shares, fits
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.types import Floats, Ints


def smobf(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Return one ensemble per weight w; the caller keeps that of lowest validation loss (ties: the cheaper)."""
    candidates = problem.candidates(limits)
    return [greedy(problem, limits, candidates, w) for w in problem.weights]


def greedy(problem: SelectionProblem, limits: Floats, candidates: Ints, w: float, to_size: bool = False) -> Members:
    """Add the member of lowest score until no feasible addition lowers the score.

    Equation 2 as interpreted here: `score = (1 - w) * E + w * r` with r = C/B; an addition with r > 1 is infeasible.
    With `to_size`, continue to the problem's size even if the score rises, and skip members that leave too little
    budget for the rest of that size.
    """
    most = min(problem.size or len(candidates), len(candidates))
    if to_size:
        most = max(1, problem.costs.affordable(limits, candidates, most))
    node, score, used = problem.tree.root, np.inf, problem.costs.nothing
    free = np.ones(len(problem.names), dtype=bool)
    while len(node.members) < most:
        left = candidates[free[candidates]]
        totals = problem.costs.with_each(used)
        if to_size:
            left = left[keep_room(problem, limits, used, left, most - len(node.members) - 1)]
        else:
            left = left[fits(totals, limits)[left]]
        shares = budget_shares(totals, limits)
        member = problem.tree.step(node, left, 1 - w, w * shares[left], np.inf if to_size else score)
        if member is None:
            break
        node = problem.tree.child(node, member)
        score = (1 - w) * node.loss + w * shares[member]
        used, free[member] = problem.costs.extend(used, member), False
    return node.members


def keep_room(problem: SelectionProblem, limits: Floats, used: CostSum, left: Ints, more: int) -> NDArray[np.bool_]:
    """Return a mask of the `left` members that leave budget for `more` members, or for as many as possible."""
    while more > 0:
        room = problem.costs.leaves_room(limits, used, left, more)
        if room.any():
            return room
        more -= 1
    return fits(problem.costs.with_each(used), limits)[left]
