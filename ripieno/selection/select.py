"""Selection of the best ensemble for one budget or for every budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.selection.costs import Budget
from ripieno.selection.cross_entropy import CrossEntropy, best_weights
from ripieno.selection.forward import best_single, forward, replacement, top_k
from ripieno.selection.local_search import exact, swap
from ripieno.selection.out_of_core import BlockPool
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.problem_builder import SelectionOptions, build_problem
from ripieno.selection.smobf import smobf
from ripieno.selection.validation import Loss, SelectionMethod, check_points
from ripieno.types import Combiner, Floats

METHODS: Mapping[SelectionMethod, Callable[[SelectionProblem, Floats], list[Members]]] = {
    "smobf": smobf,
    "forward": forward,
    "replacement": replacement,
    "top-k": top_k,
    "best": best_single,
    "swap": swap,
    "exact": exact,
}
"""Each returns one or more ensembles within the limits; the caller keeps the best."""
SIZED: tuple[SelectionMethod, ...] = ("forward", "top-k")
"""Methods that return exactly `size` members, unless the budget allows fewer only."""

WEIGHTS = (0.1, 0.01, 0.001)
"""The paper's three w (section 2.1)."""


@dataclass(frozen=True)
class Choice:
    """An ensemble, as indices into the arrays that `select_members` was given."""

    members: tuple[int, ...]
    """in selection order, without repeats"""
    weights: tuple[float, ...]
    """in the same order; they sum to 1"""
    loss: float
    """on the given samples; 1 - score for accuracy and macro-F1"""
    cost: float
    """sum over the members; with several kinds of cost, the largest fraction of a budget"""
    costs: Mapping[str, float] = field(default_factory=dict)
    """sum over the members, by kind of cost"""
    combiner: Combiner = "mean"
    """combiner of the members' predictions; "weighted" where the weights differ"""
    steps: tuple[int, ...] = ()
    """all picks in order; method "replacement" may repeat a member"""
    certificate: float | None = None
    """if requested: upper bound on the loss reduction of any weighting, hence of any mean, of the candidates"""


def select_members(
    predictions: ArrayLike | Sequence[NDArray[Any]],
    labels: ArrayLike | None = None,
    costs: ArrayLike | Mapping[str, ArrayLike] | None = None,
    budget: Budget | None = None,
    method: SelectionMethod = "smobf",
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
    """Select the members that together predict best and cost at most `budget` (sections 2.1 and 2.3).

    `predictions` is (members, samples), probabilities of the true class, or (members, samples, classes), which needs
    `labels` (samples,). A list with one array per member is accepted; the arrays may be memory-mapped. For regression
    (`loss` "squared-error") they are (members, samples[, outputs]) and `labels` are the targets. `costs` is (members,),
    (members, kinds) or a mapping of kinds to (members,). `budget` is one number or a mapping of kinds to numbers, in
    the unit of the costs. Without costs each member costs 1. Every kind of cost is summed over the members.

    Methods: "smobf" (equation 2), "swap" (smobf, then exchanges), "forward" (plain greedy), "replacement" (greedy; a
    member may repeat and then has more weight), "top-k", "best", and "exact" (all ensembles, at most 2**20). All but
    "best" take `size`: the exact number for "forward", "replacement" (steps) and "top-k", else the maximum. Only
    members that fit the budget alone are considered, the best by their own loss: a fraction `prune` of the library, at
    least 20. `weights` are the w of equation 2; `names` are used in messages.

    `certify` bounds the gain of any other ensemble, see `Choice.certificate`. Large data is read in blocks: by local
    threads, by the workers of `pool.map`, or from the memory of a torch `device`.

    Raises SelectionError if an argument is invalid or nothing fits the budget.
    """
    options = SelectionOptions(loss, weights, prune, size, combiner, names, pool, device)
    problem = build_problem(predictions, labels, costs, budget, method, options)
    limits = problem.costs.limits(budget)
    chosen = problem.best(METHODS[method](problem, limits))
    return _choice(problem, chosen, limits, _combiner(method, combiner), certify)


def front(
    predictions: ArrayLike | Sequence[NDArray[Any]],
    labels: ArrayLike | None = None,
    costs: ArrayLike | Mapping[str, ArrayLike] | None = None,
    budgets: Iterable[float | Mapping[str, float]] | None = None,
    method: SelectionMethod = "smobf",
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
    """Select for every budget at once; a larger budget never gives a higher loss.

    With `budgets` (numbers or mappings): return one choice for each, in their order. It is the best fitting ensemble
    evaluated for any of them, thus at least as good as `select_members` for that budget alone. Without: return the
    ensembles evaluated for `points` budgets, from the cheapest member's cost to the cost of all, cheapest first.
    Ensembles dominated in both cost and loss are dropped, so the best for a budget is the last that fits. With a
    `size`, "forward" and "top-k" return exactly that many members, or the most that a budget allows, even where fewer
    have a lower loss. For the other arguments and errors see `select_members`.
    """
    wanted = None if budgets is None else list(budgets)
    if wanted is not None and not wanted:
        raise SelectionError("budgets are empty: pass at least one budget, or None for the whole front")
    options = SelectionOptions(loss, weights, prune, size, combiner, names, pool, device)
    problem = build_problem(predictions, labels, costs, wanted[0] if wanted else None, method, options)
    limits = [problem.costs.limits(b) for b in (_budgets(problem, points) if wanted is None else wanted)]
    ensembles = {members for limit in limits for members in METHODS[method](problem, limit)} - {()}
    resolved = _combiner(method, combiner)
    if size is not None and method in SIZED:
        # intermediate ensembles have fewer members; each budget gets as many members as it allows
        evaluated = sorted(ensembles, key=lambda members: (-len(members), *problem.sort_key(members)))
        steps = [members for members in evaluated if len(members) == len(evaluated[0])]
    else:
        evaluated = steps = sorted(ensembles.union(problem.tree.nodes) - {()}, key=problem.sort_key)
    if wanted is not None:
        best = [next(members for members in evaluated if problem.is_feasible(members, limit)) for limit in limits]
        return tuple(_choice(problem, m, limit, resolved, certify) for m, limit in zip(best, limits, strict=True))
    staircase: list[Members] = []
    for members in steps:
        if not staircase or problem.costs.total(members)[0] < problem.costs.total(staircase[-1])[0]:
            staircase.append(members)
    return tuple(_choice(problem, members, limits[-1], resolved, certify) for members in reversed(staircase))


def _combiner(method: SelectionMethod, combiner: Combiner) -> Combiner:
    return "weighted" if method == "replacement" and combiner == "mean" else combiner


def _budgets(problem: SelectionProblem, points: int) -> list[float]:
    if len(problem.costs.kinds) > 1:
        raise SelectionError(f"costs have {len(problem.costs.kinds)} kinds: pass budgets as mappings of kinds")
    check_points(points)
    costs = problem.costs.values[:, 0]
    highest = float(costs.sum())
    if highest == 0:
        return [1.0]
    lowest = max(float(costs.min()), highest * 1e-6)
    return [float(b) for b in np.geomspace(lowest, highest, points)]


def _choice(problem: SelectionProblem, members: Members, limits: Floats, resolved: Combiner, certify: bool) -> Choice:
    counts = Counter(members)
    total = problem.costs.total(members)
    loss = problem.loss(members)
    return Choice(
        members=tuple(int(m) for m in counts),
        weights=tuple(count / len(members) for count in counts.values()),
        loss=loss,
        cost=float(total[0]) if len(total) == 1 else float((total / limits).max()),
        costs=problem.costs.named(total),
        combiner=resolved,
        steps=tuple(int(m) for m in members),
        certificate=max(0.0, loss - _lowest(problem, limits)) if certify else None,
    )


def _lowest(problem: SelectionProblem, limits: Floats) -> float:
    """Return a lower bound of the cross-entropy of any weighting of the candidates."""
    objective = problem.tree.objective
    if not isinstance(objective, CrossEntropy):
        raise SelectionError("certify is unsupported here: it needs cross-entropy and predictions in memory")
    return best_weights(objective.truth[problem.candidates(limits)])[2]
