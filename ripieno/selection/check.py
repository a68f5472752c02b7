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


def one_of(value: object, kind: Any, what: str) -> None:
    """Raise SelectionError when `value` is none of the words of the literal type `kind`."""
    if value not in get_args(kind):
        raise SelectionError(f"no {what} {value!r}; there are: {', '.join(get_args(kind))}")


def read_predictions(predictions: ArrayLike, loss: Loss) -> NDArray[Any]:
    """An array of floats (members, samples) or (members, samples, classes), neither empty nor anything else."""
    try:
        array = np.asarray(predictions)
    except ValueError as error:
        raise SelectionError("predictions of the members differ in shape: all must answer the same samples") from error
    if array.dtype.kind not in "fiu":
        raise SelectionError(f"predictions are of type {array.dtype}: must be float16, float32 or float64")
    if array.ndim not in (2, 3):
        raise SelectionError(f"predictions have shape {array.shape}: must be (members, samples[, classes])")
    if 0 in array.shape:
        raise SelectionError(f"predictions have shape {array.shape}: there must be at least one of each")
    if array.ndim == 3 and array.shape[2] < 2 and loss != "squared-error":
        raise SelectionError(f"predictions have shape {array.shape}: there must be at least two classes")
    return array


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


def check_probabilities(array: NDArray[Any], names: Sequence[str]) -> None:
    """Probabilities are finite, in 0..1 and, over the classes of a sample, sum to one."""
    for name, rows in zip(names, array, strict=True):
        low, high = float(rows.min()), float(rows.max())
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


def check_finite(array: NDArray[Any], names: Sequence[str]) -> None:
    """Predictions of a regression are finite."""
    for name, rows in zip(names, array, strict=True):
        if not np.isfinite(rows).all():
            raise SelectionError(f"{name} predicts NaN or infinity: leave it out or predict again")


def read_labels(labels: ArrayLike | None, array: NDArray[Any], loss: Loss) -> Ints | None:
    """Class of each sample; None is right for true-class probabilities under cross-entropy only."""
    if labels is None:
        if array.ndim == 3 or loss != "cross-entropy":
            raise SelectionError(f"{loss} of predictions of shape {array.shape} needs labels: ({array.shape[1]},)")
        return None
    values = np.asarray(labels)
    if values.shape != (array.shape[1],):
        raise SelectionError(f"labels have shape {values.shape}: must be ({array.shape[1]},), one a sample")
    if values.dtype.kind not in "iu" and not (values.dtype.kind == "f" and (values == np.floor(values)).all()):
        raise SelectionError(f"labels are of type {values.dtype}: must be integers, an index into the classes")
    if array.ndim == 3 and not (values.min() >= 0 and values.max() < array.shape[2]):
        wrong = values.min() if values.min() < 0 else values.max()
        raise SelectionError(f"label {wrong} with {array.shape[2]} classes: labels are 0 to {array.shape[2] - 1}")
    return values.astype(np.int64)


def read_targets(targets: ArrayLike | None, array: NDArray[Any]) -> NDArray[np.float64]:
    """Targets of a regression, of the shape of one member's predictions."""
    if targets is None:
        raise SelectionError(f"squared-error needs labels: the targets, {array.shape[1:]}")
    try:
        values = np.asarray(targets, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SelectionError(f"targets are not numbers: {error}") from error
    if values.shape != array.shape[1:]:
        raise SelectionError(f"targets have shape {values.shape}: must be {array.shape[1:]}, as a member's predictions")
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


__all__ = ["Combiner", "Loss", "Method"]
