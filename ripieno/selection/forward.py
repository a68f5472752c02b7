"""The methods SMOBF is compared with, in terms of the same greedy steps."""

from __future__ import annotations

import numpy as np

from ripieno.selection.objective import Floats
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.smobf import greedy, keep_room

REPEATS = 50
"""Steps of `replacement` when no size is given."""


def forward(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Plain forward greedy (Caruana et al. 2004), the paper's baseline (section 3.3.3): each step the lowest loss.

    With a size it goes on to that size even where the loss rises, else until no member that fits lowers it.
    """
    candidates = problem.candidates(limits)
    return [greedy(problem, limits, candidates, 0.0, to_size=problem.size is not None)]


def replacement(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Greedy with replacement: `size` (default 50) steps, a member may come again and then weighs more.

    A member is paid for once. Every prefix is an ensemble; the caller keeps the best.
    """
    candidates = problem.candidates(limits)
    node, used = problem.tree.root, np.zeros(len(limits))
    chosen = np.zeros(len(problem.names), dtype=bool)
    nothing = np.zeros(len(problem.names))
    prefixes = []
    bounded = np.isfinite(limits).any()
    for _ in range(problem.size or REPEATS):
        left = candidates[(chosen | problem.costs.fits(limits, used))[candidates]] if bounded else candidates
        member = problem.tree.step(node, left, 1.0, nothing[left], np.inf)
        assert member is not None  # members chosen before always fit
        node = problem.tree.child(node, member)
        if not chosen[member]:
            used, chosen[member] = used + problem.costs.values[member], True
        prefixes.append(node.members)
    return prefixes


def top_k(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """The members of lowest own loss, as many as `size` and the budget allow; without a size every k is an answer."""
    order = problem.order(limits)
    taken: Members = ()
    prefixes = []
    used = np.zeros(len(limits))
    if problem.size is None:
        for member in order:
            if problem.costs.fits(limits, used)[member]:
                taken, used = (*taken, int(member)), used + problem.costs.values[member]
                prefixes.append(taken)
        return prefixes
    most = max(1, problem.costs.affordable(limits, order, min(problem.size, len(order))))
    while len(taken) < most:
        left = order[~np.isin(order, taken)]
        fits = keep_room(problem, limits, used, left, most - len(taken) - 1)
        if not fits.any():
            break
        member = int(left[fits.argmax()])
        taken, used = (*taken, member), used + problem.costs.values[member]
    return [taken]


def best_single(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """The one member of lowest loss that fits."""
    return [(int(problem.order(limits)[0]),)]
