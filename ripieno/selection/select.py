"""Selection of the best ensemble for one budget or for every budget."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.selection import validation
from ripieno.selection.choice import Choice
from ripieno.selection.costs import Budget, SharedCosts, fits
from ripieno.selection.cross_entropy import CrossEntropy, best_weights
from ripieno.selection.cross_validation import Expected, cross_validate
from ripieno.selection.forward import best_single, forward, replacement, top_k
from ripieno.selection.local_search import exact, swap
from ripieno.selection.losses import MEASURES
from ripieno.selection.out_of_core import BlockPool
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.problem_builder import SelectionOptions, build_problem, resolve
from ripieno.selection.smobf import smobf
from ripieno.selection.smobf_r import smobf_r
from ripieno.selection.validation import REPEATING, Calibrate, Loss, SelectionMethod, check_points
from ripieno.tasks.calibration import MemberCalibration, apply_temperature
from ripieno.types import Combiner, Floats, Task

METHODS: Mapping[SelectionMethod, Callable[[SelectionProblem, Floats], list[Members]]] = {
    "smobf-r": smobf_r,
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


def select_members(
    predictions: ArrayLike | Sequence[NDArray[Any]],
    targets: ArrayLike | None = None,
    costs: ArrayLike | Mapping[str, ArrayLike] | None = None,
    budget: Budget | None = None,
    method: SelectionMethod | None = None,
    *,
    task: str | Task = "classification",
    loss: Loss | None = None,
    weights: Sequence[float] | None = None,
    prune: float = 0.2,
    size: int | None = None,
    combiner: Combiner = "mean",
    names: Sequence[str] | None = None,
    certify: bool = False,
    pool: BlockPool | None = None,
    device: str = "cpu",
    starts: int = 8,
    calibrate: Calibrate | None = None,
    cv: int | None = None,
    pixels: int | None = None,
    calibrations: Sequence[MemberCalibration] | None = None,
    labels: ArrayLike | None = None,
    shared: Sequence[str] | None = None,
    shared_costs: SharedCosts | None = None,
) -> Choice:
    """Select the members that together predict best and cost at most `budget` (sections 2.1 and 2.3).

    `predictions` depend on the `task`, a kind or the `Task` of a data set. A list with one array per member is
    accepted; the arrays may be memory-mapped. "classification": (members, samples), probabilities of the true class, or
    (members, samples, classes), which needs `targets` (samples,). "multilabel": probabilities (members, samples,
    labels) and `targets` (samples, labels) of 0 and 1. "regression": values (members, samples[, targets]) and `targets`
    (samples[, targets]). "segmentation": likelihoods of the counted pixels (members, counted pixels), or probabilities
    (members, samples, height, width, classes), and the masks as `targets`. `labels` is another name of `targets`.

    `loss` is by default the task's own. Classification: "cross-entropy", "accuracy", "macro-f1", or "squared-error" of
    probabilities, and with targets (samples[, outputs]) of values. Multilabel: "binary-cross-entropy", "macro-f1" with
    labels predicted from 0.5 on, "mean-average-precision". Regression: "squared-error", the mean over the raw targets,
    several of them each divided by its variance over these samples; "rmse", "mae", "r2". Segmentation:
    "cross-entropy", "mean-iou", "mean-dice", "pixel-accuracy". With `pixels`, at most that many of each image are drawn
    at random, always the same ones; the loss is then that of the sample.

    `costs` is (members,), (members, kinds) or a mapping of kinds to (members,). `budget` is one number or a mapping of
    kinds to numbers, in the unit of the costs. Without costs each member costs 1. Every kind of cost is summed over the
    members. Members may share parts, as heads share a backbone: `shared` names the part of each member ("": none),
    `shared_costs` maps each name to its cost, a number or a mapping of kinds. `costs` are then without these parts, and
    an ensemble pays each part once.

    Methods: "smobf-r" (equation 2 with replacement; the default, except for a median), "smobf" (equation 2), "swap"
    (smobf, then exchanges), "forward" (plain greedy), "replacement" (greedy; a member may repeat and then has more
    weight), "top-k", "best", and "exact" (all ensembles, at most 2**20). All but "best" take `size`: the exact number
    for "forward", "replacement" (steps) and "top-k", else the maximum of distinct members. Only members that fit the
    budget alone are considered, the best by their own loss: a fraction `prune` of the library, at least 20. `weights`
    are the w of equation 2, by default 0.1, 0.01 and 0.001, and 0 for "smobf-r", which also starts from each of the
    `starts` best affordable members. `names` are used in messages.

    `calibrate` "members" fits a temperature to each member, then one to the ensemble; "joint" fits the ensemble's at
    every greedy step; "none" fits none. It is "members" by default where `method` is left out, and there are
    predictions of all classes or labels and a mean; other tasks have "none" only. `calibrations` are temperatures of
    the members fitted before.

    `cv` folds give `Choice.expected_loss`; 0: none. By default 5 where `method`, `pool` and `device` are left out.
    `certify` bounds the gain of any other ensemble, see `Choice.certificate`. Large data is read in blocks: by local
    threads, by the workers of `pool.map`, or from the memory of a torch `device`.

    Raises SelectionError if an argument is invalid or nothing fits the budget.
    """
    targets = validation.targets_of(targets, labels)
    arrays = validation.read_predictions(predictions, loss, validation.read_kind(task))
    options = resolve(
        arrays,
        targets,
        task,
        method,
        weights,
        calibrate,
        cv,
        calibrations,
        loss=loss,
        prune=prune,
        size=size,
        combiner=combiner,
        names=names,
        pool=pool,
        device=device,
        starts=starts,
        pixels=pixels,
        certify=certify,
        shared=shared,
        shared_costs=shared_costs,
    )
    problem = build_problem(arrays, targets, costs, budget, options, calibrations)
    limits = [problem.costs.limits(budget)]
    select = partial(_best_alone, options)
    return _choices(problem, select(problem, limits), limits, options, select)[0]


def front(
    predictions: ArrayLike | Sequence[NDArray[Any]],
    targets: ArrayLike | None = None,
    costs: ArrayLike | Mapping[str, ArrayLike] | None = None,
    budgets: Iterable[float | Mapping[str, float]] | None = None,
    method: SelectionMethod | None = None,
    *,
    points: int = 20,
    task: str | Task = "classification",
    loss: Loss | None = None,
    weights: Sequence[float] | None = None,
    prune: float = 0.2,
    size: int | None = None,
    combiner: Combiner = "mean",
    names: Sequence[str] | None = None,
    certify: bool = False,
    pool: BlockPool | None = None,
    device: str = "cpu",
    starts: int = 8,
    calibrate: Calibrate | None = None,
    cv: int | None = None,
    pixels: int | None = None,
    calibrations: Sequence[MemberCalibration] | None = None,
    labels: ArrayLike | None = None,
    shared: Sequence[str] | None = None,
    shared_costs: SharedCosts | None = None,
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
    targets = validation.targets_of(targets, labels)
    arrays = validation.read_predictions(predictions, loss, validation.read_kind(task))
    options = resolve(
        arrays,
        targets,
        task,
        method,
        weights,
        calibrate,
        cv,
        calibrations,
        loss=loss,
        prune=prune,
        size=size,
        combiner=combiner,
        names=names,
        pool=pool,
        device=device,
        starts=starts,
        pixels=pixels,
        certify=certify,
        shared=shared,
        shared_costs=shared_costs,
    )
    problem = build_problem(arrays, targets, costs, wanted[0] if wanted else None, options, calibrations)
    tried = [problem.costs.limits(b) for b in (_budgets(problem, points) if wanted is None else wanted)]
    select = partial(_best_of_all, options, tried)
    if wanted is not None:
        choices = _choices(problem, select(problem, tried), tried, options, select)
        within = [[c for c in choices if problem.is_feasible(c.steps, limit)] for limit in tried]
        return tuple(min(fitting, key=lambda c: c.loss) for fitting in within)
    evaluated = _evaluated(problem, tried, options)
    if _exact_size(options):
        evaluated = [members for members in evaluated if len(members) == len(evaluated[0])]
    steps: list[Members] = []
    for members in evaluated:
        if not steps or problem.costs.total(members)[0] < problem.costs.total(steps[-1])[0]:
            steps.append(members)
    limits = [problem.costs.total(members) for members in steps[::-1]]
    choices = _choices(problem, steps[::-1], limits, options, select)
    # the temperatures of ensembles can reorder losses that are almost equal
    lowest = list(itertools.accumulate((choice.loss for choice in choices), min))
    return tuple(c for n, c in enumerate(choices) if n == 0 or c.loss < lowest[n - 1])


def _best_alone(options: SelectionOptions, problem: SelectionProblem, limits: Sequence[Floats]) -> list[Members]:
    """Select for each of the `limits` by itself."""
    return [problem.best(METHODS[options.method](problem, limit)) for limit in limits]


def _best_of_all(
    options: SelectionOptions, tried: Sequence[Floats], problem: SelectionProblem, limits: Sequence[Floats]
) -> list[Members]:
    """Select for each of the `limits` from all ensembles evaluated for the budgets `tried`."""
    evaluated = _evaluated(problem, tried, options)
    costs = np.stack([problem.costs.total(members) for members in evaluated])
    return [evaluated[int(fits(costs, limit).argmax())] for limit in limits]


def _evaluated(problem: SelectionProblem, tried: Sequence[Floats], options: SelectionOptions) -> list[Members]:
    """Return the ensembles evaluated for the budgets `tried`, best first."""
    ensembles = {members for limit in tried for members in METHODS[options.method](problem, limit)} - {()}
    if _exact_size(options):
        # intermediate ensembles have fewer members; each budget gets as many members as it allows
        return sorted(ensembles, key=lambda members: (-len(members), *problem.sort_key(members)))
    return problem.ranked(ensembles.union(problem.tree.nodes) - {()})


def _exact_size(options: SelectionOptions) -> bool:
    return options.size is not None and options.method in SIZED


def _budgets(problem: SelectionProblem, points: int) -> list[float]:
    if len(problem.costs.kinds) > 1:
        raise SelectionError(f"costs have {len(problem.costs.kinds)} kinds: pass budgets as mappings of kinds")
    check_points(points)
    highest = float(problem.costs.total(range(len(problem.names)))[0])
    if highest == 0:
        return [1.0]
    lowest = max(float(problem.costs.alone.min()), highest * 1e-6)
    return [float(b) for b in np.geomspace(lowest, highest, points)]


def _choices(
    problem: SelectionProblem,
    found: Sequence[Members],
    limits: Sequence[Floats],
    options: SelectionOptions,
    select: Callable[[SelectionProblem, Sequence[Floats]], list[Members]],
) -> list[Choice]:
    """Return the choice of each ensemble `found` for its limits; `select` found them, and finds those of the folds."""
    combiner: Combiner = "weighted" if options.method in REPEATING and options.combiner == "mean" else options.combiner
    expected: Sequence[Expected | tuple[None, None]] = [(None, None)] * len(found)
    if options.cv and problem.data.units >= options.cv:
        expected = cross_validate(problem, limits, select, options.cv, options.loss, combiner)
    finished: dict[Members, tuple[float, float]] = {}
    choices = []
    for members, limit, (mean, error) in zip(found, limits, expected, strict=True):
        if members not in finished:
            finished[members] = _finish(problem, members, combiner, options)
        temperature, loss = finished[members]
        counts = Counter(members)
        total = problem.costs.total(members)
        choices.append(
            Choice(
                members=tuple(int(m) for m in counts),
                weights=tuple(count / len(members) for count in counts.values()),
                loss=loss,
                cost=float(total[0]) if len(total) == 1 else float((total / limit).max()),
                costs=problem.costs.named(total),
                combiner=combiner,
                steps=tuple(int(m) for m in members),
                certificate=max(0.0, problem.loss(members) - _lowest(problem, limit)) if options.certify else None,
                temperatures=tuple(problem.data.temperature(m) for m in counts),
                temperature=temperature,
                expected_loss=mean,
                expected_loss_error=error,
                task=options.kind.name,
            )
        )
    return choices


def _finish(
    problem: SelectionProblem, members: Members, combiner: Combiner, options: SelectionOptions
) -> tuple[float, float]:
    """Return the temperature of an ensemble, and its loss at it."""
    if options.calibrate == "none":
        return 1.0, problem.loss(members)
    data = problem.data.whole
    combined, targets = data.combined(members, combiner), data.targets
    assert targets is not None  # calibration requires them
    temperature = data.ensemble_temperature(combined)
    loss = MEASURES[options.loss](apply_temperature(combined, temperature, options.kind), targets)
    if data is problem.data:
        return temperature, loss
    # the loss of all pixels, less what the temperature gains on their sample
    return temperature, problem.loss(members) + loss - MEASURES[options.loss](combined, targets)


def _lowest(problem: SelectionProblem, limits: Floats) -> float:
    """Return a lower bound of the cross-entropy of any weighting of the candidates."""
    objective = problem.tree.objective
    if not isinstance(objective, CrossEntropy):
        raise SelectionError("certify is unsupported here: it needs cross-entropy and predictions in memory")
    return best_weights(objective.truth[problem.candidates(limits)])[2]
