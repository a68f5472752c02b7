"""SMOBF with replacement: equation 2 (section 2.1), in which a member may be picked again and then has more weight."""

from __future__ import annotations

import numpy as np

from ripieno.selection.costs import budget_shares, fits
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.types import Floats, Ints

PICKS = 50
"""Maximum number of picks of a run."""
PATIENCE = 4
"""Number of picks without gain after which a run stops: a repeat disturbs equal weights before it helps."""
GAIN = 3e-4
"""Fall of the loss, in `SelectionProblem.unit`, that counts as a gain: far below the noise of a validation set."""

State = tuple[float | None, Members]
"""Weight w, None where it ranks the members alike, and the picks so far."""


def smobf_r(problem: SelectionProblem, limits: Floats) -> list[Members]:
    """Return the best prefix of each greedy run, and a refinement of the best; the caller keeps the best of all.

    There is one run per weight w and start. A run starts with no member or with one of the `problem.starts` affordable
    networks of lowest own loss. Without these starts, an expensive first pick can use up a budget that two cheaper
    members would use better. The refinement goes on from the best with w = 0, `PICKS` picks at most.
    """
    candidates = problem.candidates(limits)
    starts: list[Members] = [(), *((int(m),) for m in problem.order(limits)[: problem.starts])]
    waited: dict[State, int] = {}
    runs = [_run(problem, limits, candidates, w, start, waited) for w in problem.weights for start in starts]
    ends = [best for best in runs if best]
    return [*ends, _run(problem, limits, candidates, 0.0, problem.best(ends), {}, patience=PICKS)]


def _run(
    problem: SelectionProblem,
    limits: Floats,
    candidates: Ints,
    w: float,
    start: Members,
    waited: dict[State, int],
    patience: int = PATIENCE,
) -> Members:
    """Pick the member of lowest score (1 - w) * E + w * C/B, `PICKS` times at most; a repeat adds no cost.

    Return the prefix of lowest loss. `waited` are the picks without gain of the runs before; this one ends where one of
    them passed with no more of them, because it would pick the same members from there.
    """
    tree, costs = problem.tree, problem.costs.take(candidates)
    node, chosen = tree.at(start), np.isin(candidates, start)
    used, distinct = costs.sum_of(int(candidates.searchsorted(member)) for member in start), len(start)
    best, mark, without_gain, gain = node, node.loss, 0, GAIN * problem.unit
    while len(node.members) < PICKS and without_gain < patience:
        with_each = costs.with_each(used)
        affordable = fits(with_each, limits) & ~chosen
        free = (problem.size is None or distinct < problem.size) and bool(affordable.any())
        state = (w if free else None, node.members)
        if waited.get(state, patience) <= without_gain:
            break
        waited[state] = without_gain
        if free:
            left = np.flatnonzero(affordable | chosen)
            shares = np.where(chosen, budget_shares(used.total, limits), budget_shares(with_each, limits))[left]
            member = tree.step(node, candidates[left], 1 - w, w * shares, np.inf)
        else:
            left = np.flatnonzero(chosen)
            member = tree.step(node, candidates[left], 1.0, np.zeros(len(left)), np.inf)
        assert member is not None  # members of the ensemble always fit
        node = tree.merged_child(node, member)
        position = int(candidates.searchsorted(member))
        if not chosen[position]:
            chosen[position], used, distinct = True, costs.extend(used, position), distinct + 1
        without_gain = without_gain + 1 if node.loss > mark - gain else 0
        mark = node.loss if without_gain == 0 else mark
        best = node if node.loss < best.loss else best
    return best.members
