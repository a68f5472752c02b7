"""Local search by exchanges after SMOBF, and exhaustive search."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ripieno.errors import SelectionError
from ripieno.selection.costs import CostSum, fits
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.smobf import smobf
from ripieno.types import Floats

MOVES = 100
"""Maximum number of moves."""
GAIN = 1e-12
"""Minimum gain of a move, in units of `SelectionProblem.unit`, so that rounding cannot cause cycles."""
ENSEMBLES = 1 << 20
"""Maximum number of ensembles that `exact` evaluates."""


def swap(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Improve SMOBF's best ensemble by the best move (exchange one, add one, drop one) while a move gains."""
    current = min(smobf(problem, limits), key=problem.sort_key)
    for _ in range(MOVES):
        moves = _moves(problem, limits, current)
        if not moves or problem.loss(min(moves, key=problem.sort_key)) >= problem.loss(current) - GAIN * problem.unit:
            break
        current = min(moves, key=problem.sort_key)
    return [current]


def _moves(problem: SelectionProblem, limits: Floats, current: Members) -> list[Members]:
    """Return the best ensembles of lower loss that are one move away, one per kind of move."""
    candidates = problem.candidates(limits)
    ceiling = problem.loss(current)
    most = problem.size or len(candidates)
    moves = []
    for dropped in (None, *current):
        kept = tuple(m for m in current if m != dropped)
        if kept and problem.loss(kept) < ceiling:
            moves.append(kept)
        if len(kept) < most:
            within = fits(problem.costs.with_each(problem.costs.sum_of(kept)), limits)
            within[list(current)] = False
            others = candidates[within[candidates]]
            member = problem.tree.step(problem.tree.at(kept), others, 1.0, np.zeros(len(others)), ceiling)
            if member is not None:
                moves.append((*kept, member))
    return moves


def exact(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Return the ensemble of lowest loss among all that fit. Raises SelectionError if there are too many."""
    candidates = problem.candidates(limits)
    most = min(problem.size or len(candidates), len(candidates))
    count = sum(math.comb(len(candidates), k) for k in range(1, most + 1))
    if count > ENSEMBLES:
        raise SelectionError(
            f"method exact would evaluate {count} ensembles of {len(candidates)} candidates, but at most {ENSEMBLES} "
            "are allowed: pass a size, a smaller library or method swap"
        )
    objective, costs = problem.tree.objective, problem.costs.take(candidates)
    best: tuple[float, Floats, Members] = (np.inf, np.zeros(len(limits)), ())
    stack: list[tuple[Members, Any, CostSum, int]] = [((), objective.state(()), costs.nothing, 0)]
    while stack:
        members, state, used, start = stack.pop()
        rest, totals = candidates[start:], costs.with_each(used, slice(start, None))
        within = fits(totals, limits)
        if not within.any():
            continue
        losses = objective.losses(state, rest[within])
        for position, loss in zip(np.flatnonzero(within), losses, strict=True):
            larger, total, following = (*members, int(rest[position])), totals[position], start + int(position) + 1
            if (loss, *total, len(larger)) < (best[0], *best[1], len(best[2])):
                best = (float(loss), total, larger)
            if len(larger) < most and following < len(candidates):
                extended = objective.extend(state, larger[-1])
                stack.append((larger, extended, costs.extend(used, following - 1), following))
    return [best[2]]
