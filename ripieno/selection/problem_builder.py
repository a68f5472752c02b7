"""Construction of a `SelectionProblem` from the user's arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ripieno.errors import SelectionError
from ripieno.selection import validation
from ripieno.selection.costs import Budget, SharedCosts, read_costs
from ripieno.selection.cross_entropy import CrossEntropy
from ripieno.selection.dense import JointObjective, MeanObjective, MedianObjective
from ripieno.selection.losses import MEASURES, constant_loss, losses_of, one_hot_targets, target_scale
from ripieno.selection.member_data import MemberData, calibrate
from ripieno.selection.out_of_core import BlockedCrossEntropy, BlockPool
from ripieno.selection.pixel_data import pixel_data
from ripieno.selection.problem import SelectionProblem
from ripieno.selection.squared_error import SquaredError
from ripieno.selection.torch_device import DeviceCrossEntropy
from ripieno.selection.tree import Objective, Tree
from ripieno.selection.validation import Calibrate, Loss, Predictions, SelectionMethod
from ripieno.tasks import metrics
from ripieno.tasks.calibration import MemberCalibration
from ripieno.tasks.combiners import one_hot
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Combiner, Task

IN_MEMORY = 1 << 24
"""Entries of a true-class matrix above which it is read in blocks; below, three copies fit in 200 MB."""

WEIGHTS = (0.1, 0.01, 0.001)
"""The paper's three w (section 2.1); `smobf-r` also takes 0."""


@dataclass(frozen=True)
class SelectionOptions:
    """Options of one call, documented at `select_members`."""

    task: str | Task
    method: SelectionMethod
    loss: Loss
    weights: Sequence[float]
    prune: float
    size: int | None
    combiner: Combiner
    names: Sequence[str] | None
    pool: BlockPool | None
    device: str
    starts: int
    calibrate: Calibrate
    cv: int
    """number of folds; 0: no cross-validation"""
    pixels: int | None
    """most pixels of each image; None: all"""
    certify: bool
    shared: Sequence[str] | None
    shared_costs: SharedCosts | None

    @property
    def kind(self) -> TaskKind:
        """Kind of the task."""
        return validation.read_kind(self.task)


def resolve(
    predictions: Predictions,
    targets: ArrayLike | None,
    task: str | Task,
    method: SelectionMethod | None,
    weights: Sequence[float] | None,
    calibrate: Calibrate | None,
    cv: int | None,
    calibrations: Sequence[MemberCalibration] | None = None,
    **rest: Any,
) -> SelectionOptions:
    """Return the options with their defaults, which follow the method, the predictions and the combiner.

    Raises SelectionError for options that contradict each other.
    """
    kind, combiner = validation.read_kind(task), rest["combiner"]
    loss: Any = rest.pop("loss") or losses_of(kind)[0]
    chosen = method or validation.default_method(combiner)
    validation.check_words(chosen, loss, combiner, kind)
    validation.check_numbers(weights, rest["prune"], rest["size"], rest["starts"], cv)
    validation.check_pixels(rest["pixels"], kind)
    scattered = rest["pool"] is not None or rest["device"] != "cpu"
    if kind.is_pixelwise:
        classes = predictions[0].ndim > 1 or calibrations is not None
    else:
        classes = kind.activation == "sigmoid" or (predictions[0].ndim == 2 and _axes(targets) == 1)
    if calibrate is None:
        calibrate = validation.default_calibration(method, combiner, kind) if classes and not scattered else "none"
    validation.check_calibration(calibrate, loss, combiner, kind, scattered)
    if calibrate != "none" and not classes:
        raise SelectionError(f"calibrate {calibrate} needs labels and predictions (members, samples, classes)")
    if calibrate == "joint" and rest["certify"]:
        raise SelectionError("certify is unsupported with calibrate joint: pass calibrate members or none")
    if cv is None:
        cv = 0 if scattered else validation.default_folds(method)
    return SelectionOptions(
        task=task,
        method=chosen,
        loss=loss,
        weights=tuple(weights) if weights is not None else (*WEIGHTS, 0.0) if chosen == "smobf-r" else WEIGHTS,
        calibrate=calibrate,
        cv=cv,
        **rest,
    )


def build_problem(
    predictions: Predictions,
    targets: ArrayLike | None,
    costs: ArrayLike | Mapping[str, ArrayLike] | None,
    budget: Budget | None,
    options: SelectionOptions,
    calibrations: Sequence[MemberCalibration] | None = None,
) -> SelectionProblem:
    """Build the selection problem of `predictions` that `read_predictions` returned.

    `calibrations` are those of the members, fitted before; their predictions are taken as checked. Raises
    SelectionError for the first invalid argument.
    """
    _check_together(predictions, targets, options)
    names = validation.member_names(options.names, len(predictions))
    checked = read_costs(costs, budget, names, options.shared, options.shared_costs)
    data = _data(predictions, targets, names, options, calibrations)

    def objective(data: MemberData) -> Objective[Any]:
        return _objective(data, options)

    return SelectionProblem(
        Tree(objective(data)),
        checked,
        names,
        tuple(options.weights),
        options.prune,
        options.size,
        options.starts,
        data,
        objective,
        _unit(data, options),
    )


def _unit(data: MemberData, options: SelectionOptions) -> float:
    """Return the loss that counts like one nat; see `SelectionProblem.unit`."""
    if data.targets is None or options.kind.activation != "identity":
        return 1.0
    return constant_loss(options.loss, data.targets)


def _check_together(arrays: Predictions, targets: ArrayLike | None, options: SelectionOptions) -> None:
    """Raise SelectionError for options that contradict the predictions or each other."""
    classes = options.kind.activation == "softmax"
    size = "height, width, " if options.kind.is_pixelwise else ""
    needed = f"needs {options.kind.targets_name} and predictions (members, samples, {size}classes)"
    if classes and options.combiner in ("vote", "median") and arrays[0].ndim == 1:
        raise SelectionError(f"combiner {options.combiner} {needed}")
    if classes and options.loss not in ("cross-entropy", "squared-error") and arrays[0].ndim == 1:
        raise SelectionError(f"loss {options.loss} {needed}")
    no_classes = options.loss == "squared-error" and _axes(targets) != 1
    if classes and no_classes and options.combiner in ("vote", "median"):
        raise SelectionError(f"combiner {options.combiner} does not support regression: pass combiner mean")
    if options.size is not None and options.size > len(arrays) and options.method != "replacement":
        raise SelectionError(f"size {options.size} exceeds the library: pass at most {len(arrays)}")


def _data(
    arrays: Predictions,
    targets: ArrayLike | None,
    names: Sequence[str],
    options: SelectionOptions,
    calibrations: Sequence[MemberCalibration] | None,
) -> MemberData:
    kind = options.kind
    if kind.is_pixelwise:
        terms = options.task, options.loss, options.combiner, options.pixels
        return pixel_data(arrays, targets, names, kind, *terms, options.calibrate != "none", calibrations)
    if kind.activation != "softmax":
        return _task_data(arrays, targets, names, kind, options, calibrations)
    if options.loss == "squared-error" and (arrays[0].ndim == 1 or _axes(targets) == 2):
        validation.check_finite(arrays, names)
        return MemberData(arrays, validation.read_targets(targets, arrays[0].shape))
    if calibrations is None:
        validation.check_members(arrays, names)
    classes = validation.labels_or_none(targets, arrays[0].shape, options.loss)
    if arrays[0].ndim == 1:
        return MemberData(arrays, None)
    assert classes is not None  # labels_or_none requires them
    if options.calibrate == "none":
        return MemberData(arrays, classes)
    return MemberData(arrays, classes, calibrate(arrays, classes, kind) if calibrations is None else calibrations)


def _task_data(
    arrays: Predictions,
    targets: ArrayLike | None,
    names: Sequence[str],
    kind: TaskKind,
    options: SelectionOptions,
    calibrations: Sequence[MemberCalibration] | None,
) -> MemberData:
    """Check the predictions and targets of several labels or of a regression."""
    shape = arrays[0].shape
    values = validation.task_targets(targets, shape, kind, options.task)
    if kind.activation == "sigmoid":
        if calibrations is None:
            validation.check_members(arrays, names, normalised=False)
        if options.calibrate != "none":
            fitted = calibrate(arrays, values, kind) if calibrations is None else calibrations
            return MemberData(arrays, values, fitted, kind=kind)
    else:
        validation.check_finite(arrays, names)
    if options.loss == "squared-error" and values[0].size > 1:
        scale = target_scale(values)
        arrays = [(p / scale).astype(np.result_type(p.dtype, np.float32), copy=False) for p in arrays]
        values = values / scale
    return MemberData(arrays, values, kind=kind)


def _objective(data: MemberData, options: SelectionOptions) -> Objective[Any]:
    if data.targets is None:
        return _cross_entropy(data.truth(), options)
    labels, members = data.kept(data.targets), range(len(data.predictions))
    likelihoods = options.loss in ("cross-entropy", "binary-cross-entropy")
    means = options.combiner in ("mean", "weighted")
    if options.loss == "squared-error" and means and data.targets.shape == data.predictions[0].shape:
        return SquaredError(np.stack([data.kept(p) for p in data.predictions]), labels)
    if likelihoods and means and options.calibrate != "joint":
        return _cross_entropy(data.truth(), options)
    arrays = [data.kept(data.calibrated(m)) for m in members]
    if options.calibrate == "joint":
        return JointObjective(np.stack(arrays), labels, data.kind)
    if options.combiner == "median":
        return MedianObjective(np.stack(arrays), labels, MEASURES[options.loss], data.kind.activation)
    if options.combiner == "vote":
        arrays = [one_hot(p) for p in arrays]
    if options.loss == "cross-entropy":
        return _cross_entropy([metrics.true_class(p, labels) for p in arrays], options)
    if options.loss == "squared-error":
        return SquaredError(np.stack(arrays), one_hot_targets(labels, arrays[0].shape[-1]))
    order_only = data.kind.activation == "softmax"
    return MeanObjective(np.stack(arrays), labels, MEASURES[options.loss], order_only)


def _cross_entropy(truth: Predictions, options: SelectionOptions) -> Objective[Any]:
    if options.device != "cpu":
        return DeviceCrossEntropy(list(truth), options.device)
    if options.pool is None and len(truth) * len(truth[0]) <= IN_MEMORY:
        return CrossEntropy(truth)
    return BlockedCrossEntropy(list(truth), options.pool)


def _axes(targets: ArrayLike | None) -> int:
    return 0 if targets is None else np.asarray(targets).ndim
