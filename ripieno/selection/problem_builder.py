"""Construction of a `SelectionProblem` from the user's arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.selection import validation
from ripieno.selection.costs import Budget, read_costs
from ripieno.selection.cross_entropy import CrossEntropy
from ripieno.selection.dense import MeanObjective, Measure, MedianObjective
from ripieno.selection.out_of_core import BlockedCrossEntropy, BlockPool
from ripieno.selection.problem import SelectionProblem
from ripieno.selection.squared_error import SquaredError
from ripieno.selection.torch_device import DeviceCrossEntropy
from ripieno.selection.tree import Objective, Tree
from ripieno.selection.validation import Loss, Predictions, SelectionMethod
from ripieno.tasks import metrics
from ripieno.tasks.combiners import one_hot
from ripieno.types import Combiner

IN_MEMORY = 1 << 24
"""Entries of a true-class matrix above which it is read in blocks; below, three copies fit in 200 MB."""

MEASURES: Mapping[str, Measure] = {
    "cross-entropy": metrics.cross_entropy,
    "accuracy": lambda probabilities, labels: 1.0 - metrics.accuracy(probabilities, labels),
    "macro-f1": lambda probabilities, labels: 1.0 - metrics.macro_f1(probabilities, labels),
    "squared-error": lambda rows, labels: metrics.squared_error(rows, _one_hot(rows, labels)),
}


@dataclass(frozen=True)
class SelectionOptions:
    """Options of one call, documented at `select_members`."""

    loss: Loss
    weights: Sequence[float]
    prune: float
    size: int | None
    combiner: Combiner
    names: Sequence[str] | None
    pool: BlockPool | None
    device: str


def build_problem(
    predictions: ArrayLike | Sequence[NDArray[Any]],
    labels: ArrayLike | None,
    costs: ArrayLike | Mapping[str, ArrayLike] | None,
    budget: Budget | None,
    method: SelectionMethod,
    options: SelectionOptions,
) -> SelectionProblem:
    """Build the selection problem. Raises SelectionError for the first invalid argument."""
    validation.check_words(method, options.loss, options.combiner)
    arrays = validation.read_predictions(predictions, options.loss)
    validation.check_numbers(options.weights, options.prune, options.size)
    _check_together(arrays, labels, method, options)
    names = validation.member_names(options.names, len(arrays))
    checked = read_costs(costs, budget, names)
    tree: Tree[Any] = Tree(_objective(arrays, labels, names, options))
    return SelectionProblem(tree, checked, names, tuple(options.weights), options.prune, options.size)


def _check_together(
    arrays: Predictions, labels: ArrayLike | None, method: SelectionMethod, options: SelectionOptions
) -> None:
    """Raise SelectionError for options that contradict the predictions or each other."""
    if options.combiner in ("vote", "median") and arrays[0].ndim == 1:
        raise SelectionError(f"combiner {options.combiner} needs labels and predictions (members, samples, classes)")
    if options.loss in ("accuracy", "macro-f1") and arrays[0].ndim == 1:
        raise SelectionError(f"loss {options.loss} needs labels and predictions (members, samples, classes)")
    if options.loss == "squared-error" and options.combiner in ("vote", "median") and _axes(labels) != 1:
        raise SelectionError(f"combiner {options.combiner} does not support regression: pass combiner mean")
    if options.size is not None and options.size > len(arrays) and method != "replacement":
        raise SelectionError(f"size {options.size} exceeds the library: pass at most {len(arrays)}")


def _objective(
    arrays: Predictions, labels: ArrayLike | None, names: Sequence[str], options: SelectionOptions
) -> Objective[Any]:
    if options.loss == "squared-error" and (arrays[0].ndim == 1 or _axes(labels) == 2):
        validation.check_finite(arrays, names)
        return SquaredError(np.asarray(arrays), validation.read_targets(labels, arrays[0].shape))
    validation.check_members(arrays, names)
    classes = validation.labels_or_none(labels, arrays[0].shape, options.loss)
    if arrays[0].ndim == 1:
        return _cross_entropy(arrays, options)
    assert classes is not None  # labels_or_none requires them
    if options.combiner == "median":
        return MedianObjective(np.asarray(arrays), classes, MEASURES[options.loss])
    if options.combiner == "vote":
        arrays = [one_hot(p) for p in arrays]
    if options.loss == "cross-entropy":
        return _cross_entropy([metrics.true_class(p, classes) for p in arrays], options)
    if options.loss == "squared-error":
        return SquaredError(np.asarray(arrays), _one_hot(arrays[0], classes))
    return MeanObjective(np.asarray(arrays), classes, MEASURES[options.loss])


def _cross_entropy(truth: Predictions, options: SelectionOptions) -> Objective[Any]:
    if options.device != "cpu":
        return DeviceCrossEntropy(list(truth), options.device)
    if options.pool is None and len(truth) * len(truth[0]) <= IN_MEMORY:
        return CrossEntropy(truth)
    return BlockedCrossEntropy(list(truth), options.pool)


def _one_hot(probabilities: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.eye(probabilities.shape[-1])[labels])


def _axes(labels: ArrayLike | None) -> int:
    return 0 if labels is None else np.asarray(labels).ndim
