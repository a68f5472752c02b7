"""Arguments of selection, checked: one line says which member is wrong and how."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.selection.objective import Ints
from ripieno.types import Combiner

Loss = Literal["cross-entropy", "squared-error", "accuracy", "macro-f1"]
Method = Literal["smobf", "forward", "replacement", "top-k", "best", "swap", "exact"]
SUM_TOLERANCE = 0.02
"""How far the probabilities of a sample may sum from one: what 100 rounded float16 can lose."""
ONE_AND_A_BIT = 0x3C01
"""Bits of the float16 after one: rounding may leave it."""
Predictions = Sequence[NDArray[Any]] | NDArray[Any]
"""One array for each member, or all as one."""


def one_of(value: object, kind: Any, what: str) -> None:
    """Raise SelectionError when `value` is none of the words of the literal type `kind`."""
    if value not in get_args(kind):
        raise SelectionError(f"no {what} {value!r}; there are: {', '.join(get_args(kind))}")


def check_words(method: str, loss: str, combiner: str) -> None:
    """Raise SelectionError unless these are a method, a loss and a combiner that go together."""
    for word, kind, what in ((method, Method, "method"), (loss, Loss, "loss"), (combiner, Combiner, "combiner")):
        one_of(word, kind, what)
    if combiner == "weighted" and method != "replacement":
        raise SelectionError(f"method {method} gives no weights: combine by mean, or choose method replacement")
    if combiner == "median" and method == "replacement":
        raise SelectionError("a median has no weights: combine by mean or vote, or choose another method")


def check_points(points: int) -> None:
    """Raise SelectionError unless `points` is a number of budgets."""
    if isinstance(points, bool) or not isinstance(points, Integral) or points < 1:
        raise SelectionError(f"points {points!r}: must be a whole number of budgets, at least 1")


def read_predictions(predictions: ArrayLike | Sequence[NDArray[Any]], loss: Loss) -> Predictions:
    """One array of floats for each member, (samples[, classes]) and all of one shape; mapped ones stay so."""
    predictions = unmasked(predictions, "predictions")
    if isinstance(predictions, list | tuple) and all(isinstance(p, np.ndarray) for p in predictions):
        shapes = sorted({p.shape for p in predictions})
        if len(shapes) > 1:
            raise SelectionError(f"predictions of members have shapes {shapes[0]} and {shapes[1]}: make them the same")
        arrays: list[NDArray[Any]] = list(predictions)
    else:
        try:
            array = np.asanyarray(predictions)
        except ValueError as error:
            raise SelectionError("predictions of members differ in shape: all must answer the same samples") from error
        arrays = list(array) if array.ndim > 1 else [array]
        if array.ndim < 2:
            raise SelectionError(f"predictions have shape {array.shape}: must be (members, samples[, classes])")
    if not arrays:
        raise SelectionError("predictions of no member: there must be at least one")
    shape = (len(arrays), *arrays[0].shape)
    if len(shape) not in (2, 3):
        raise SelectionError(f"predictions have shape {shape}: must be (members, samples[, classes])")
    if 0 in shape:
        raise SelectionError(f"predictions have shape {shape}: there must be at least one of each")
    if len(shape) == 3 and shape[2] < 2 and loss != "squared-error":
        raise SelectionError(f"predictions have shape {shape}: there must be at least two classes")
    wrong = [p.dtype for p in arrays if p.dtype.kind not in "fiu"]
    if wrong:
        raise SelectionError(f"predictions are of type {wrong[0]}: must be float16, float32 or float64")
    if isinstance(predictions, np.ndarray) and _plain(predictions):
        return predictions
    return [p if _plain(p) else p.astype(np.float64) for p in arrays]


def unmasked(values: Any, what: str) -> Any:
    """`values` without the mask of a masked array. Raises SelectionError where something is masked: it has no value."""
    if isinstance(values, list | tuple):
        return type(values)([unmasked(value, what) for value in values])
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if count := int(np.ma.getmaskarray(values).sum()):
        raise SelectionError(f"{what} are masked at {count} places: fill them, or leave these members or samples out")
    return values.data


def _plain(array: NDArray[Any]) -> bool:
    return array.dtype.isnative and array.dtype.kind == "f"


def check_names(names: Sequence[str] | None, count: int) -> Sequence[str]:
    """Names for messages; `member 3` when there are none."""
    if names is None:
        return [f"member {i}" for i in range(count)]
    if len(names) != count:
        raise SelectionError(f"{len(names)} names for {count} members: give one a member")
    if len(set(names)) != count:
        double = next(n for i, n in enumerate(names) if n in names[:i])
        raise SelectionError(f"two members are named {double!r}: names must differ")
    return names


def check_probabilities(predictions: Predictions, names: Sequence[str]) -> None:
    """Probabilities are finite, in 0..1 and, over the classes of a sample, sum to one."""
    if isinstance(predictions, np.ndarray) and predictions.ndim == 2 and _within(predictions):
        return  # in one go: a look at each row costs more than a search
    for name, rows in zip(names, predictions, strict=True):
        low, high = (0.0, 1.0) if _within(rows) else (float(rows.min()), float(rows.max()))
        if np.isnan(low) or np.isnan(high):
            count = int(np.isnan(rows).sum())
            raise SelectionError(f"{name} predicts NaN for {count} values: leave it out or predict again")
        if low < 0 or high > 1.001:
            value = low if low < 0 else high
            raise SelectionError(f"{name} predicts {value:g}: probabilities are in 0..1 (logits need a softmax first)")
        if rows.ndim == 2:
            off = np.abs(rows.sum(axis=1, dtype=np.float32) - 1).max()
            if off > SUM_TOLERANCE:
                raise SelectionError(f"{name} predicts classes that sum {off:.3g} off one: divide each by the sum")


def _within(values: NDArray[Any]) -> bool:
    """Whether all are numbers in 0..1, give or take a rounding."""
    if values.dtype == np.float16 and values.flags.c_contiguous:
        # the bits of a float16 order like integers, which compare many times faster; a sign, NaN or infinity is above
        return bool(values.view(np.uint16).max() <= ONE_AND_A_BIT)
    return bool(values.min() >= 0 and values.max() <= 1)


def check_finite(predictions: Predictions, names: Sequence[str]) -> None:
    """Predictions of a regression are finite."""
    for name, rows in zip(names, predictions, strict=True):
        if not np.isfinite(rows).all():
            raise SelectionError(f"{name} predicts NaN or infinity: leave it out or predict again")


def read_labels(labels: ArrayLike | None, shape: tuple[int, ...], loss: Loss) -> Ints | None:
    """Class of each sample of predictions of one member's `shape`; None is right for true-class probabilities only."""
    if labels is None:
        if len(shape) == 2 or loss != "cross-entropy":
            raise SelectionError(f"{loss} of predictions of shape {shape} a member needs labels, ({shape[0]},)")
        return None
    values = np.asarray(unmasked(labels, "labels"))
    if values.shape != shape[:1]:
        raise SelectionError(f"labels have shape {values.shape}: must be ({shape[0]},), one a sample")
    if values.dtype.kind not in "iu" and not (values.dtype.kind == "f" and (values == np.floor(values)).all()):
        raise SelectionError(f"labels are of type {values.dtype}: must be integers, an index into the classes")
    if len(shape) == 2 and not (values.min() >= 0 and values.max() < shape[1]):
        wrong = values.min() if values.min() < 0 else values.max()
        raise SelectionError(f"label {wrong} with {shape[1]} classes: labels are 0 to {shape[1] - 1}")
    return values.astype(np.int64)


def read_targets(targets: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Targets of a regression, of the `shape` of one member's predictions."""
    if targets is None:
        raise SelectionError(f"squared-error needs labels: the targets, {shape}")
    try:
        values = np.asarray(targets, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SelectionError(f"targets are not numbers: {error}") from error
    if values.shape != shape:
        raise SelectionError(f"targets have shape {values.shape}: must be {shape}, as a member's predictions")
    if not np.isfinite(values).all():
        raise SelectionError("targets contain NaN or infinity: leave those samples out")
    return values


def check_numbers(weights: Sequence[float], prune: float, size: int | None) -> None:
    """Options of the methods are in their ranges."""
    if not weights or not all(isinstance(w, int | float) and 0 <= w <= 1 for w in weights):
        raise SelectionError(f"weights {weights!r}: must be numbers in 0..1, at least one (say 0.1, 0.01, 0.001)")
    if isinstance(prune, bool) or not isinstance(prune, int | float) or not 0 < prune <= 1:
        raise SelectionError(f"prune {prune!r}: must be a share of the library above 0 and at most 1")
    if size is not None and (isinstance(size, bool) or not isinstance(size, Integral) or size < 1):
        raise SelectionError(f"size {size!r}: must be a whole number of members, at least 1")
