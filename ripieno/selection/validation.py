"""Validation of the arguments of selection; each error is one line that names the member and the fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.selection.losses import losses_of
from ripieno.tasks.labels import check_names, read_labels
from ripieno.tasks.probabilities import are_in_range, check_probabilities
from ripieno.tasks.registry import TASKS
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Combiner, Ints, Task

Loss = Literal[
    "cross-entropy",
    "accuracy",
    "macro-f1",
    "squared-error",
    "binary-cross-entropy",
    "mean-average-precision",
    "rmse",
    "mae",
    "r2",
    "mean-iou",
    "mean-dice",
    "pixel-accuracy",
]
"""Of all kinds of tasks; `losses_of` returns those of one."""
SelectionMethod = Literal["smobf-r", "smobf", "forward", "replacement", "top-k", "best", "swap", "exact"]
Calibrate = Literal["members", "joint", "none"]
FORMS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "classification": ("(members, samples[, classes])", (2, 3)),
    "multilabel": ("(members, samples, labels)", (3,)),
    "regression": ("(members, samples[, targets])", (2, 3)),
    "segmentation": ("(members, counted pixels) or (members, samples, height, width, classes)", (2, 5)),
}
"""Shape of all predictions, and its numbers of axes, by kind of task."""
REPEATING: tuple[SelectionMethod, ...] = ("smobf-r", "replacement")
"""Methods that may pick a member again, and so give weights."""
Predictions = Sequence[NDArray[Any]] | NDArray[Any]
"""One array per member, or one array for all."""


def default_method(combiner: str) -> SelectionMethod:
    """Return the method where none is named."""
    return "smobf" if combiner == "median" else "smobf-r"


def default_calibration(method: str | None, combiner: str, kind: TaskKind = TASKS["classification"]) -> Calibrate:
    """Return the calibration where none is named, for predictions of all classes; `method` is the one named."""
    return "members" if kind.calibrates and method is None and combiner in ("mean", "weighted") else "none"


def default_folds(method: str | None) -> int:
    """Return the number of folds of the cross-validation where none is given; `method` is the one named."""
    return 5 if method is None else 0


def one_of(value: object, kind: Any, what: str) -> None:
    """Raise SelectionError if `value` is not an option of the literal type `kind`."""
    if value not in get_args(kind):
        raise SelectionError(f"unknown {what} {value!r}: expected one of {', '.join(get_args(kind))}")


def check_words(method: str, loss: str, combiner: str, kind: TaskKind) -> None:
    """Raise SelectionError unless method, loss and combiner are valid and compatible with a kind of task."""
    for word, words, what in (
        (method, SelectionMethod, "method"),
        (combiner, Combiner, "combiner"),
    ):
        one_of(word, words, what)
    if loss not in losses_of(kind):
        known = ", ".join(losses_of(kind))
        what = f"loss {loss} does not fit task {kind.name}" if loss in get_args(Loss) else f"unknown loss {loss!r}"
        raise SelectionError(f"{what}: expected one of {known}")
    kind.check_combiner(combiner)
    if combiner == "weighted" and method not in REPEATING:
        raise SelectionError(f"method {method} gives no weights: pass combiner mean or method {' or '.join(REPEATING)}")
    if combiner == "median" and method in REPEATING:
        raise SelectionError(f"a median has no weights, and {method} gives some: pass combiner mean or method smobf")


def check_calibration(calibrate: str, loss: str, combiner: str, kind: TaskKind, scattered: bool = False) -> None:
    """Raise SelectionError unless the calibration is known and fits the others; `scattered`: pool or device."""
    one_of(calibrate, Calibrate, "calibration")
    if calibrate != "none" and not kind.calibrates:
        raise SelectionError(f"calibrate {calibrate} does not fit task {kind.name}: pass calibrate none")
    if calibrate == "joint" and kind.is_pixelwise:
        raise SelectionError(f"calibrate joint does not fit task {kind.name}: pass calibrate members or none")
    if calibrate == "joint" and (
        loss not in ("cross-entropy", "binary-cross-entropy") or combiner not in ("mean", "weighted") or scattered
    ):
        raise SelectionError("calibrate joint needs the cross-entropy of a mean, without pool and device")


def check_points(points: int) -> None:
    """Raise SelectionError unless `points` is a positive integer."""
    if isinstance(points, bool) or not isinstance(points, Integral) or points < 1:
        raise SelectionError(f"points {points!r} is invalid: expected a whole number of budgets, at least 1")


def read_kind(task: str | Task) -> TaskKind:
    """Return the kind of a task, given or named. Raises SelectionError for an unknown one."""
    name = task.kind if isinstance(task, Task) else task
    if name not in TASKS:
        raise SelectionError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}")
    return TASKS[name]


def read_predictions(
    predictions: ArrayLike | Sequence[NDArray[Any]],
    loss: Loss | None,
    kind: TaskKind,
) -> Predictions:
    """Return one float array (samples[, outputs]) per member, all of one shape; mapped arrays stay mapped."""
    form, axes = FORMS[kind.name]
    predictions = unmasked(predictions, "predictions")
    if isinstance(predictions, list | tuple) and all(isinstance(p, np.ndarray) for p in predictions):
        shapes = sorted({p.shape for p in predictions})
        if len(shapes) > 1:
            raise SelectionError(f"members' predictions have shapes {shapes[0]} and {shapes[1]}: expected one shape")
        arrays: list[NDArray[Any]] = list(predictions)
    else:
        try:
            array = np.asanyarray(predictions)
        except ValueError as error:
            raise SelectionError("predictions of members differ in shape: all must be of the same samples") from error
        arrays = list(array) if array.ndim > 1 else [array]
        if array.ndim < 2:
            raise SelectionError(f"predictions have shape {array.shape}: expected {form}")
    if not arrays:
        raise SelectionError("predictions are empty: expected at least one member")
    shape = (len(arrays), *arrays[0].shape)
    if len(shape) not in axes:
        raise SelectionError(f"predictions have shape {shape}: expected {form}")
    if 0 in shape:
        raise SelectionError(f"predictions have shape {shape}: every axis must have at least one entry")
    if len(shape) == 3 and shape[2] < 2 and loss != "squared-error" and kind.activation == "softmax":
        raise SelectionError(f"predictions have shape {shape}: expected at least two classes")
    wrong = [p.dtype for p in arrays if p.dtype.kind not in "fiu"]
    if wrong:
        raise SelectionError(f"predictions have type {wrong[0]}: expected float16, float32 or float64")
    if isinstance(predictions, np.ndarray) and _plain(predictions):
        return predictions
    return [p if _plain(p) else p.astype(np.float64) for p in arrays]


def unmasked(values: Any, what: str) -> Any:
    """Return `values` without its mask. Raises SelectionError if a value is masked, since it is missing."""
    if isinstance(values, list | tuple):
        return type(values)([unmasked(value, what) for value in values])
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if count := int(np.ma.getmaskarray(values).sum()):
        raise SelectionError(f"{what} are masked at {count} positions: fill them, or remove these members or samples")
    return values.data


def _plain(array: NDArray[Any]) -> bool:
    return array.dtype.isnative and array.dtype.kind == "f"


def member_names(names: Sequence[str] | None, count: int) -> Sequence[str]:
    """Return the names for messages; `member 3` etc. if `names` is None."""
    if names is None:
        return [f"member {i}" for i in range(count)]
    if len(names) != count:
        raise SelectionError(f"{len(names)} names for {count} members: expected one per member")
    check_names(names, "members", SelectionError)
    return names


def check_members(predictions: Predictions, names: Sequence[str], normalised: bool = True) -> None:
    """Raise SelectionError unless probabilities are finite, in 0..1, and where `normalised` of sum 1 over classes."""
    if isinstance(predictions, np.ndarray) and predictions.ndim == 2 and are_in_range(predictions):
        return  # at once: checking each row takes longer than a search
    for name, rows in zip(names, predictions, strict=True):
        check_probabilities(name, rows, SelectionError, normalised)


def check_finite(predictions: Predictions, names: Sequence[str]) -> None:
    """Raise SelectionError unless predictions of a regression are finite."""
    for name, rows in zip(names, predictions, strict=True):
        if not np.isfinite(rows).all():
            raise SelectionError(f"{name} predicts NaN or infinity: remove the member or predict again")


def labels_or_none(labels: ArrayLike | None, shape: tuple[int, ...], loss: Loss) -> Ints | None:
    """Return the class of each sample for predictions of `shape`; None is valid for true-class probabilities only."""
    if labels is None:
        if len(shape) == 2 or loss != "cross-entropy":
            raise SelectionError(f"{loss} of predictions {shape} per member needs labels: pass ({shape[0]},) integers")
        return None
    classes = shape[1] if len(shape) == 2 else None
    return read_labels(unmasked(labels, "labels"), classes, "labels", SelectionError, shape[0])


def read_targets(targets: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the targets of a regression, of the `shape` of one member's predictions."""
    if targets is None:
        raise SelectionError(f"loss squared-error needs labels: pass the targets, an array {shape}")
    try:
        values = np.asarray(targets, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SelectionError(f"targets are not numbers: {error}") from error
    if values.shape != shape:
        raise SelectionError(f"targets have shape {values.shape}: expected {shape}, as a member's predictions")
    if not np.isfinite(values).all():
        raise SelectionError("targets contain NaN or infinity: remove these samples")
    return values


def targets_of(targets: ArrayLike | None, labels: ArrayLike | None) -> ArrayLike | None:
    """Return the targets, given by either name."""
    if targets is not None and labels is not None:
        raise SelectionError("targets and labels are two names of one argument: pass targets only")
    return labels if targets is None else targets


def task_targets(targets: Any, shape: tuple[int, ...], kind: TaskKind, task: str | Task) -> NDArray[Any]:
    """Return the targets of several labels or of a regression, in the `shape` of one member's predictions.

    Those of a regression stay in double. A `Task` is that of a data set, whose targets were checked; otherwise targets
    that are all alike are refused.
    """
    if targets is None:
        raise SelectionError(f"task {kind.name} needs targets: pass an array {shape}")
    full = task
    if not isinstance(full, Task):
        names = tuple(map(str, range(shape[1]))) if len(shape) > 1 else ("0",)
        full = Task(kind.name, (len(names),), names)
    given = unmasked(targets, "targets")
    read = kind.read_targets(given, full, "targets", SelectionError)
    if len(read) != shape[0]:
        raise SelectionError(f"targets are of {len(read)} samples, predictions of {shape[0]}: pass one for each")
    if full is not task:
        kind.check_training(read, full, "targets", SelectionError)
    exact = np.asarray(given, np.float64) if read.dtype.kind == "f" else read
    return exact.reshape(shape)


def check_pixels(pixels: int | None, kind: TaskKind) -> None:
    """Raise SelectionError unless `pixels` is a positive integer and `kind` has pixels; None is always valid."""
    if pixels is None:
        return
    if not kind.is_pixelwise:
        raise SelectionError(f"pixels does not fit task {kind.name}: leave it out")
    if isinstance(pixels, bool) or not isinstance(pixels, Integral) or pixels < 1:
        raise SelectionError(f"pixels {pixels!r} is invalid: expected a whole number for each image, at least 1")


def check_numbers(
    weights: Sequence[float] | None, prune: float, size: int | None, starts: int = 0, cv: int | None = None
) -> None:
    """Raise SelectionError unless the options of the methods are in their ranges."""
    for name, value, what in (("starts", starts, "members"), ("cv", cv, "folds")):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 0):
            raise SelectionError(f"{name} {value!r} is invalid: expected a whole number of {what}, at least 0")
    if cv == 1:
        raise SelectionError("cv 1 is invalid: expected at least 2 folds, or 0 for no cross-validation")
    if weights is not None and (not weights or not all(isinstance(w, int | float) and 0 <= w <= 1 for w in weights)):
        raise SelectionError(f"weights {weights!r} are invalid: expected numbers in 0..1, e.g. 0.1, 0.01, 0.001")
    if isinstance(prune, bool) or not isinstance(prune, int | float) or not 0 < prune <= 1:
        raise SelectionError(f"prune {prune!r} is invalid: expected a fraction of the library above 0 and at most 1")
    if size is not None and (isinstance(size, bool) or not isinstance(size, Integral) or size < 1):
        raise SelectionError(f"size {size!r} is invalid: expected a whole number of members, at least 1")
