"""Baselines of SMOBF, built from the same greedy steps."""

from __future__ import annotations

import numpy as np

from ripieno.selection.costs import fits
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.smobf import greedy, keep_room
from ripieno.types import Floats

REPEATS = 50
"""Steps of `replacement` when no size is given."""


def forward(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Run forward greedy selection (Caruana et al. 2004), the paper's baseline (section 3.3.3): add the lowest loss.

    With a size it continues to that size even if the loss rises; otherwise it stops when no fitting member lowers it.
    """
    candidates = problem.candidates(limits)
    return [greedy(problem, limits, candidates, 0.0, to_size=problem.size is not None)]


def replacement(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Run greedy selection with replacement for `size` (default 50) steps: a repeated member has more weight.

    A repeated member costs once. Every prefix is an ensemble; the caller keeps the best.
    """
    candidates = problem.candidates(limits)
    node, used = problem.tree.root, problem.costs.nothing
    chosen = np.zeros(len(problem.names), dtype=bool)
    nothing = np.zeros(len(problem.names))
    prefixes = []
    bounded = np.isfinite(limits).any()
    for _ in range(problem.size or REPEATS):
        left = candidates[(chosen | fits(problem.costs.with_each(used), limits))[candidates]] if bounded else candidates
        member = problem.tree.step(node, left, 1.0, nothing[left], np.inf)
        assert member is not None  # chosen members always fit
        node = problem.tree.child(node, member)
        if not chosen[member]:
            used, chosen[member] = problem.costs.extend(used, member), True
        prefixes.append(node.members)
    return prefixes


def top_k(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Return the members of lowest own loss, as many as `size` and the budget allow; without a size, one set per k."""
    order = problem.order(limits)
    taken: Members = ()
    prefixes = []
    used = problem.costs.nothing
    if problem.size is None:
        for member in order:
            if fits(problem.costs.with_each(used), limits)[member]:
                taken, used = (*taken, int(member)), problem.costs.extend(used, member)
                prefixes.append(taken)
        return prefixes
    most = max(1, problem.costs.affordable(limits, order, min(problem.size, len(order))))
    while len(taken) < most:
        left = order[~np.isin(order, taken)]
        room = keep_room(problem, limits, used, left, most - len(taken) - 1)
        if not room.any():
            break
        member = int(left[room.argmax()])
        taken, used = (*taken, member), problem.costs.extend(used, member)
    return [taken]


def best_single(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Return the single fitting member of lowest loss."""
    return [(int(problem.order(limits)[0]),)]
