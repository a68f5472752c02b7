"""The best ensemble for a budget, and for every budget at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.selection.choice import Choice
from ripieno.selection.costs import Budget
from ripieno.selection.cross_entropy import CrossEntropy
from ripieno.selection.forward import best_single, forward, replacement, top_k
from ripieno.selection.local_search import exact, swap
from ripieno.selection.objective import Floats
from ripieno.selection.out_of_core import BlockPool
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.problem_builder import SelectionOptions, build_problem
from ripieno.selection.smobf import smobf
from ripieno.selection.validation import Loss, Method, check_points
from ripieno.selection.weight_bound import best_weights
from ripieno.types import Combiner

METHODS: Mapping[Method, Callable[[SelectionProblem, Floats], list[Members]]] = {
    "smobf": smobf,
    "forward": forward,
    "replacement": replacement,
    "top-k": top_k,
    "best": best_single,
    "swap": swap,
    "exact": exact,
}
"""Each gives one ensemble or more that keep the limits; the best of them is chosen."""
SIZED: tuple[Method, ...] = ("forward", "top-k")
"""Methods that give just the `size` they are asked for, unless the budget cannot pay for so many."""

WEIGHTS = (0.1, 0.01, 0.001)
"""The paper's three w (section 2.1)."""


def select_members(
    predictions: ArrayLike | Sequence[NDArray[Any]],
    labels: ArrayLike | None = None,
    costs: ArrayLike | Mapping[str, ArrayLike] | None = None,
    budget: Budget = None,
    method: Method = "smobf",
    *,
    loss: Loss = "cross-entropy",
    weights: Sequence[float] = WEIGHTS,
    prune: float = 0.2,
    size: int | None = None,
    combiner: Combiner = "mean",
    names: Sequence[str] | None = None,
    certify: bool = False,
    pool: BlockPool | None = None,
    device: str = "cpu",
) -> Choice:
    """Choose the members that together predict best and cost at most `budget` (sections 2.1 and 2.3).

    `predictions` is (members, samples), probabilities of the true class, or (members, samples, classes), which needs
    `labels` (samples,); also a list with an array a member, which may be memory-mapped. Of a regression (`loss`
    "squared-error") they are (members, samples[, outputs]) and `labels` the targets. `costs` is (members,), (members,
    kinds) or a mapping of kinds to (members,); `budget` one number or a mapping of kinds to numbers, in the unit of the
    costs. Without costs each member costs 1. A cost is summed over the members, whatever its kind.

    Methods: "smobf" (equation 2), "swap" (smobf, then exchanges), "forward" (the plain greedy), "replacement" (the
    same where a member may come again and then weighs more), "top-k", "best", and "exact" (all ensembles, at most a
    million). All but "best" take `size`: just that for "forward", "replacement" (steps) and "top-k", else at most.
    Of the members that fit the budget alone, the best by their own loss are looked at: a share `prune` of the library,
    at least 20. `weights` are the w of equation 2; `names` are used in messages.

    `certify` bounds what any other ensemble could gain, see `Choice.certificate`. What is large is read in blocks, by
    threads here, by those that `pool.map` hands them to, or from the memory of a torch `device`.

    Raises SelectionError when an argument cannot be used or nothing fits the budget.
    """
    options = SelectionOptions(loss, weights, prune, size, combiner, names, pool, device)
    problem = build_problem(predictions, labels, costs, budget, method, options)
    limits = problem.costs.limits(budget)
    chosen = problem.best(METHODS[method](problem, limits))
    return _choice(problem, chosen, limits, _rule(method, combiner), certify)


def front(
    predictions: ArrayLike | Sequence[NDArray[Any]],
    labels: ArrayLike | None = None,
    costs: ArrayLike | Mapping[str, ArrayLike] | None = None,
    budgets: Iterable[float | Mapping[str, float]] | None = None,
    method: Method = "smobf",
    *,
    points: int = 20,
    loss: Loss = "cross-entropy",
    weights: Sequence[float] = WEIGHTS,
    prune: float = 0.2,
    size: int | None = None,
    combiner: Combiner = "mean",
    names: Sequence[str] | None = None,
    certify: bool = False,
    pool: BlockPool | None = None,
    device: str = "cpu",
) -> tuple[Choice, ...]:
    """Choose for every budget at once; more budget never gives a higher loss.

    With `budgets` (numbers or mappings): one choice for each, in their order: the best of all ensembles met for any of
    them that fits it, thus at least as good as `select_members` for that budget alone. Without: the ensembles met for
    `points` budgets from the cheapest member's cost to that of all, less those that another beats in both cost and
    loss, cheapest first; the best for a budget is then the last that it pays for. With a `size`, "forward" and "top-k"
    give just that many members, or the most that a budget pays for, even where fewer have a lower loss. Other arguments
    and errors are those of `select_members`.
    """
    wanted = None if budgets is None else list(budgets)
    if wanted is not None and not wanted:
        raise SelectionError("no budgets: give at least one, or None for all")
    options = SelectionOptions(loss, weights, prune, size, combiner, names, pool, device)
    problem = build_problem(predictions, labels, costs, wanted[0] if wanted else None, method, options)
    limits = [problem.costs.limits(b) for b in (_budgets(problem, points) if wanted is None else wanted)]
    found = {members for limit in limits for members in METHODS[method](problem, limit)} - {()}
    rule = _rule(method, combiner)
    if size is not None and method in SIZED:
        # what was met on the way has fewer members; of those found, a budget gets as many as it can pay for
        met = sorted(found, key=lambda members: (-len(members), *problem.sort_key(members)))
        steps = [members for members in met if len(members) == len(met[0])]
    else:
        met = steps = sorted(found.union(problem.tree.nodes) - {()}, key=problem.sort_key)
    if wanted is not None:
        best = [next(members for members in met if problem.is_feasible(members, limit)) for limit in limits]
        return tuple(_choice(problem, m, limit, rule, certify) for m, limit in zip(best, limits, strict=True))
    staircase: list[Members] = []
    for members in steps:
        if not staircase or problem.costs.total(members)[0] < problem.costs.total(staircase[-1])[0]:
            staircase.append(members)
    return tuple(_choice(problem, members, limits[-1], rule, certify) for members in reversed(staircase))


def _rule(method: Method, combiner: Combiner) -> Combiner:
    return "weighted" if method == "replacement" and combiner == "mean" else combiner


def _budgets(problem: SelectionProblem, points: int) -> list[float]:
    if len(problem.costs.kinds) > 1:
        raise SelectionError(f"{len(problem.costs.kinds)} kinds of cost: give the budgets, each a mapping of kinds")
    check_points(points)
    costs = problem.costs.values[:, 0]
    highest = float(costs.sum())
    if highest == 0:
        return [1.0]
    lowest = max(float(costs.min()), highest * 1e-6)
    return [float(b) for b in np.geomspace(lowest, highest, points)]


def _choice(problem: SelectionProblem, members: Members, limits: Floats, rule: Combiner, certify: bool) -> Choice:
    counts = Counter(members)
    total = problem.costs.total(members)
    loss = problem.loss(members)
    return Choice(
        members=tuple(int(m) for m in counts),
        weights=tuple(count / len(members) for count in counts.values()),
        loss=loss,
        cost=float(total[0]) if len(total) == 1 else float((total / limits).max()),
        costs=problem.costs.named(total),
        combiner=rule,
        steps=tuple(int(m) for m in members),
        certificate=max(0.0, loss - _lowest(problem, limits)) if certify else None,
    )


def _lowest(problem: SelectionProblem, limits: Floats) -> float:
    """A cross-entropy below which no weights over the candidates can go."""
    objective = problem.tree.objective
    if not isinstance(objective, CrossEntropy):
        raise SelectionError("certify: there is a bound only for cross-entropy on a matrix that fits in memory")
    return best_weights(objective.truth[problem.candidates(limits)])[2]
