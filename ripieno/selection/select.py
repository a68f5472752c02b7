"""The best ensemble for a budget, and for every budget at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ripieno.errors import SelectionError
from ripieno.selection import check
from ripieno.selection.check import Combiner, Loss, Method
from ripieno.selection.choice import Choice
from ripieno.selection.costs import Budget, read_costs
from ripieno.selection.metrics import true_class
from ripieno.selection.objective import Floats
from ripieno.selection.problem import Members, Problem
from ripieno.selection.smobf import smobf
from ripieno.selection.tree import Tree
from ripieno.selection.truth import CrossEntropy

METHODS: Mapping[str, Callable[[Problem, Floats], list[Members]]] = {"smobf": smobf}
"""Each gives one ensemble or more that keep the limits; the best of them is chosen."""

WEIGHTS = (0.1, 0.01, 0.001)
"""The paper's three w (section 2.1)."""


def select_members(
    predictions: ArrayLike,
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
) -> Choice:
    """Choose the members that together predict best and cost at most `budget` (sections 2.1 and 2.3).

    `predictions` is (members, samples), probabilities of the true class, or (members, samples, classes), which needs
    `labels` (samples,). `costs` is (members,), (members, kinds) or a mapping of kinds to (members,); `budget` one
    number or a mapping of kinds to numbers, in the unit of the costs. Without costs each member costs 1. Of the
    members that fit the budget alone, the best by their own loss are looked at: a share `prune` of the library, at
    least 20. `weights` are the w of equation 2; `size` bounds the number of members; `names` are used in messages.

    Raises SelectionError when an argument cannot be used or nothing fits the budget.
    """
    problem = _problem(predictions, labels, costs, budget, method, loss, weights, prune, size, combiner, names)
    limits = problem.costs.limits(budget)
    return _choice(problem, min(METHODS[method](problem, limits), key=problem.better), limits)


def front(
    predictions: ArrayLike,
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
) -> tuple[Choice, ...]:
    """Choose for every budget at once; more budget never gives a higher loss.

    With `budgets` (numbers or mappings): one choice for each, in their order: the best of all ensembles met for any of
    them that fits it, thus at least as good as `select_members` for that budget alone. Without: the ensembles met for
    `points` budgets from the cheapest member's cost to that of all, less those that another beats in both cost and
    loss, cheapest first; the best for a budget is then the last that it pays for. Other arguments and errors are
    those of `select_members`.
    """
    wanted = None if budgets is None else list(budgets)
    if wanted is not None and not wanted:
        raise SelectionError("no budgets: give at least one, or None for all")
    first = wanted[0] if wanted else None
    problem = _problem(predictions, labels, costs, first, method, loss, weights, prune, size, combiner, names)
    limits = [problem.costs.limits(b) for b in (_budgets(problem, points) if wanted is None else wanted)]
    for limit in limits:
        METHODS[method](problem, limit)
    met = sorted((members for members in problem.tree.nodes if members), key=problem.better)
    if wanted is not None:
        best = [next(members for members in met if problem.within(members, limit)) for limit in limits]
        return tuple(_choice(problem, members, limit) for members, limit in zip(best, limits, strict=True))
    staircase: list[Members] = []
    for members in met:
        if not staircase or problem.costs.total(members)[0] < problem.costs.total(staircase[-1])[0]:
            staircase.append(members)
    return tuple(_choice(problem, members, limits[-1]) for members in reversed(staircase))


def _budgets(problem: Problem, points: int) -> list[float]:
    if len(problem.costs.kinds) > 1:
        raise SelectionError(f"{len(problem.costs.kinds)} kinds of cost: give the budgets, each a mapping of kinds")
    if isinstance(points, bool) or not isinstance(points, int) or points < 1:
        raise SelectionError(f"points {points!r}: must be a whole number of budgets, at least 1")
    costs = problem.costs.values[:, 0]
    highest = float(costs.sum())
    if highest == 0:
        return [1.0]
    lowest = max(float(costs.min()), highest * 1e-6)
    return [float(b) for b in np.geomspace(lowest, highest, points)]


def _problem(
    predictions: ArrayLike,
    labels: ArrayLike | None,
    costs: ArrayLike | Mapping[str, ArrayLike] | None,
    budget: Budget,
    method: Method,
    loss: Loss,
    weights: Sequence[float],
    prune: float,
    size: int | None,
    combiner: Combiner,
    names: Sequence[str] | None,
) -> Problem:
    for word, kind, what in ((method, Method, "method"), (loss, Loss, "loss"), (combiner, Combiner, "combiner")):
        check.one_of(word, kind, what)
    check.check_numbers(weights, prune, size)
    array = check.read_predictions(predictions, loss)
    names = check.check_names(names, len(array))
    checked = read_costs(costs, budget, names)
    check.check_probabilities(array, names)
    classes = check.read_labels(labels, array, loss)
    truth = array if array.ndim == 2 or classes is None else true_class(array, classes)
    tree: Tree[Any] = Tree(CrossEntropy(truth))
    return Problem(tree, checked, names, tuple(weights), prune, size)


def _choice(problem: Problem, members: Members, limits: Floats) -> Choice:
    counts = Counter(members)
    total = problem.costs.total(members)
    return Choice(
        members=tuple(int(m) for m in counts),
        weights=tuple(count / len(members) for count in counts.values()),
        loss=problem.loss(members),
        cost=float(total[0]) if len(total) == 1 else float((total / limits).max()),
        costs=problem.costs.named(total),
        steps=tuple(int(m) for m in members),
    )
