"""SMOBF, then exchanges; and the best ensemble of all, by looking at all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ripieno.errors import SelectionError
from ripieno.selection.costs import ROUNDING
from ripieno.selection.objective import Floats
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.smobf import smobf

MOVES = 100
"""Exchanges made at most."""
GAIN = 1e-12
"""What a move must gain, so that rounding cannot make it go in circles."""
ENSEMBLES = 1 << 20
"""Ensembles that `exact` looks at, at most."""


def swap(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """The best of SMOBF's ensembles, then the best of all moves (exchange one, add one, drop one) while one gains."""
    current = min(smobf(problem, limits), key=problem.sort_key)
    for _ in range(MOVES):
        moves = _moves(problem, limits, current)
        if not moves or problem.loss(min(moves, key=problem.sort_key)) >= problem.loss(current) - GAIN:
            break
        current = min(moves, key=problem.sort_key)
    return [current]


def _moves(problem: SelectionProblem, limits: Floats, current: Members) -> list[Members]:
    """The best ensemble of each kind that lies one move away and has a lower loss."""
    candidates = problem.candidates(limits)
    ceiling = problem.loss(current)
    most = problem.size or len(candidates)
    moves = []
    for left_out in (None, *current):
        kept = tuple(m for m in current if m != left_out)
        if kept and problem.loss(kept) < ceiling:
            moves.append(kept)
        if len(kept) < most:
            fits = problem.costs.fits(limits, problem.costs.total(kept))
            fits[list(current)] = False
            others = candidates[fits[candidates]]
            member = problem.tree.step(problem.tree.at(kept), others, 1.0, np.zeros(len(others)), ceiling)
            if member is not None:
                moves.append((*kept, member))
    return moves


def exact(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """The ensemble of lowest loss among all that fit. Raises SelectionError when they are too many to look at."""
    candidates = problem.candidates(limits)
    most = min(problem.size or len(candidates), len(candidates))
    count = sum(math.comb(len(candidates), k) for k in range(1, most + 1))
    if count > ENSEMBLES:
        raise SelectionError(
            f"exact would look at {count} ensembles of {len(candidates)} candidates, at most {ENSEMBLES}: "
            "give a size, a smaller library or method swap"
        )
    objective, costs = problem.tree.objective, problem.costs.values
    found: tuple[float, Floats, Members] = (np.inf, np.zeros(len(limits)), ())
    stack: list[tuple[Members, Any, Floats, int]] = [((), objective.state(()), np.zeros(len(limits)), 0)]
    while stack:
        members, state, used, start = stack.pop()
        rest = candidates[start:]
        fits = ((costs[rest] + used) <= limits * (1 + ROUNDING)).all(axis=1)
        if not fits.any():
            continue
        losses = objective.losses(state, rest[fits])
        for position, loss in zip(np.flatnonzero(fits), losses, strict=True):
            larger, total = (*members, int(rest[position])), used + costs[rest[position]]
            if (loss, *total, len(larger)) < (found[0], *found[1], len(found[2])):
                found = (float(loss), total, larger)
            if len(larger) < most and start + position + 1 < len(candidates):
                stack.append((larger, objective.extend(state, larger[-1]), total, start + int(position) + 1))
    return [found[2]]
