"""Temperatures of probabilities (Guo et al., "On calibration of modern neural networks", 2017, section 4.2).

A temperature T replaces probabilities p by p**(1/T) divided by its sum, after a clip at `TaskKind.floor`: above 1 they
become less confident, below 1 more. It is fitted to the summed log-likelihood of labelled samples with a Gaussian prior
on log T of mean 0, so that a few samples that are nearly all right do not make a network certain.

Of classes, `probabilities` are (samples, classes) and `labels` (samples,); the samples may be pixels. Several labels
have one temperature: each is a choice between two classes, of the probabilities p and 1 - p. Their `probabilities` and
`labels` of 0 and 1 are (samples, labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.combiners import combine
from ripieno.tasks.evidence import FOLDS, fold_masks, is_evident
from ripieno.tasks.metrics import true_class, true_labels
from ripieno.tasks.registry import DEFAULT_TASK, TASKS
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Ensemble, Float32s, Floats, Ints

CLASSES = TASKS[DEFAULT_TASK]

PRIOR = 0.1
"""Standard deviation of the prior on the logarithm of a temperature."""
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature."""
LARGEST = 80.0
"""Largest logit of a label, whose exponential is finite in single precision."""


class CalibratedRows(NamedTuple):
    """True-class probabilities of a calibrated member, and how their logarithms change with 1/T.

    Each is (samples,), of labels (samples, labels).

    With b = 1/T and logits z, `slope` is d log p / db = z_true - E[z] and `curvature` is -d2 log p / db2 = Var[z]; mean
    and variance are under the calibrated probabilities.
    """

    truth: NDArray[Any]
    slope: NDArray[Any]
    curvature: NDArray[Any]


class MemberCalibration(NamedTuple):
    """Temperature of a member, exactly 1 where the evidence for another is weak, and its rows at it.

    Of masks, the rows are of the truth only: one number for each counted pixel.
    """

    temperature: float
    rows: CalibratedRows
    sample: NDArray[Any] | None = None
    """of masks, the member's predictions (pixels, classes) of the pixels that the temperature was fitted to"""


def apply_temperature(probabilities: NDArray[Any], temperature: float, kind: TaskKind = CLASSES) -> NDArray[Any]:
    """Return probabilities (..., classes or labels) at `temperature`, in their floating type, half precision as single.

    A temperature of exactly 1 returns them unchanged.
    """
    if temperature == 1.0:
        return probabilities
    if kind.activation == "sigmoid":
        return _labels_at(probabilities, temperature, kind.floor)
    logits = _logits(probabilities, kind.floor)
    logits /= logits.dtype.type(temperature)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def combine_calibrated(
    predictions: Sequence[NDArray[Any]] | NDArray[Any], ensemble: Ensemble, kind: TaskKind = CLASSES
) -> Float32s:
    """Return what `ensemble` predicts, as served, from the predictions (members, samples, *output) of its members.

    `kind` is that of the task.
    """
    return combine_members(calibrated_members(predictions, ensemble, kind), ensemble, kind)


def calibrated_members(
    predictions: Sequence[NDArray[Any]] | NDArray[Any], ensemble: Ensemble, kind: TaskKind
) -> NDArray[Any]:
    """Return the predictions (members, samples, *output) of the members of `ensemble`, each at its temperature."""
    temperatures = ensemble.temperatures or (1.0,) * len(ensemble.members)
    pairs = zip(predictions, temperatures, strict=True)
    return np.stack([apply_temperature(np.asarray(p), t, kind) for p, t in pairs])


def combine_members(members: NDArray[Any], ensemble: Ensemble, kind: TaskKind) -> Float32s:
    """Return what `ensemble` predicts, as `combine_calibrated`, from its `calibrated_members`."""
    combined = combine(members, ensemble.weights, ensemble.combiner, kind.activation)
    return apply_temperature(combined, ensemble.temperature, kind)


def fit_temperature(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    prior: float = PRIOR,
    kind: TaskKind = CLASSES,
) -> float:
    """Return the temperature of highest posterior density, between `COLDEST` and `HOTTEST`.

    `prior` is the standard deviation of log T in nats; infinite: the temperature of highest likelihood.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = _class_logits(probabilities, labels, kind)
    true = float(logits[np.arange(len(labels)), labels].sum(dtype=np.float64))

    def negative_log_density(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        totals = np.exp(logits * logits.dtype.type(inverse)).sum(axis=1)
        likelihood = true * inverse - np.log(totals).sum(dtype=np.float64)
        return float(0.5 * (log_temperature / prior) ** 2 - likelihood)

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    optimum = minimize_scalar(negative_log_density, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(optimum.x))


def calibrated_rows(
    probabilities: NDArray[Any], labels: NDArray[Any], temperature: float, kind: TaskKind = CLASSES
) -> CalibratedRows:
    """Return the true-class probabilities at `temperature` with their derivatives."""
    shape = labels.shape
    logits, labels = _class_logits(probabilities, labels, kind)
    shares = np.exp(logits / logits.dtype.type(temperature))
    shares /= shares.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    mean = np.einsum("ij,ij->i", shares, logits)
    variance = np.einsum("ij,ij,ij->i", shares, logits, logits) - mean * mean
    found = shares[rows, labels], logits[rows, labels] - mean, np.maximum(variance, 0.0)
    return CalibratedRows(*(row.reshape(shape) for row in found))


def calibrate_member(
    probabilities: NDArray[Any], labels: NDArray[Any], kind: TaskKind = CLASSES, images: Ints | None = None
) -> MemberCalibration:
    """Fit the temperature of a member; keep it only if its cross-validated log-likelihood gains (`is_evident`).

    Where temperatures are near 1, fitted ones cost an ensemble more than they gain. `images` is the number of the
    samples of each image, where they are pixels: those of an image are no independent evidence.
    """
    temperature = fit_temperature(probabilities, labels, kind=kind)
    rows = calibrated_rows(probabilities, labels, temperature, kind)
    truth = true_labels(probabilities, labels) if kind.activation == "sigmoid" else true_class(probabilities, labels)
    numbers = np.arange(len(labels)) if images is None else np.repeat(np.arange(len(images)), images)
    units = len(labels) if images is None else len(images)
    gains = np.log(np.maximum(truth.astype(np.float64), kind.floor).reshape(len(labels), -1)) * -1
    for fold in fold_masks(units, FOLDS):
        held = fold[numbers]
        moved_truth = without_fold(rows, temperature, held)[1][held]
        gains[held] += np.log(np.maximum(moved_truth, kind.floor)).reshape(gains[held].shape)
    by_unit = np.bincount(numbers, weights=gains.sum(axis=1), minlength=units).astype(np.float64)
    if is_evident(by_unit):
        return MemberCalibration(temperature, rows)
    return MemberCalibration(1.0, calibrated_rows(probabilities, labels, 1.0, kind)._replace(truth=truth))


def without_fold(rows: CalibratedRows, temperature: float, fold: NDArray[np.bool_]) -> tuple[float, Floats]:
    """Return `moved` for the temperature fitted without the samples of `fold`, a mask (samples,)."""
    return moved(rows, temperature, ~fold)


def moved(
    rows: CalibratedRows, temperature: float, seen: NDArray[np.bool_] | slice = slice(None)
) -> tuple[float, Floats]:
    """Return the temperature fitted to the samples `seen`, and the true-class probabilities of all samples at it.

    One Newton step in log T from `temperature`, at which `rows` are, and a second-order expansion of the logarithms:
    without a fold a temperature differs by a few percent, so that both are exact to about the cube of that.
    """
    inverse = 1.0 / temperature
    slope = float(rows.slope[seen].sum(dtype=np.float64))
    curvature = float(rows.curvature[seen].sum(dtype=np.float64))
    gradient = inverse * slope + np.log(temperature) / PRIOR**2
    hessian = inverse**2 * curvature - inverse * slope + 1 / PRIOR**2
    step = float(np.clip(-gradient / hessian, -0.5, 0.5)) if hessian > 0 else 0.0
    fitted = min(max(temperature * float(np.exp(step)), COLDEST), HOTTEST)
    change = 1.0 / fitted - inverse
    logarithms = change * rows.slope - 0.5 * change**2 * rows.curvature
    return fitted, np.minimum(rows.truth * np.exp(logarithms, dtype=np.float64), 1.0)


def _class_logits(probabilities: NDArray[Any], labels: NDArray[Any], kind: TaskKind) -> tuple[NDArray[Any], Ints]:
    """Return the logits (rows, classes) with the class (rows,) of each; labels are rows of two classes."""
    if kind.activation != "sigmoid":
        return _logits(probabilities, kind.floor), labels
    logits = _label_logits(probabilities, kind.floor).reshape(-1)
    pairs = np.stack([np.minimum(-logits, 0), np.minimum(logits, 0)], axis=1)
    return pairs, labels.reshape(-1).astype(np.int64)


def _logits(probabilities: NDArray[Any], floor: float) -> NDArray[Any]:
    """Return logarithms after the clip, with a maximum of 0 per sample."""
    logits = np.log(np.maximum(probabilities, floor, dtype=_precision(probabilities)))
    logits -= logits.max(axis=-1, keepdims=True)
    return np.asarray(logits)


def _label_logits(probabilities: NDArray[Any], floor: float) -> NDArray[Any]:
    """Return the logarithm of p / (1 - p) of each label, after a clip."""
    present = np.asarray(probabilities, _precision(probabilities))
    return np.asarray(np.log(np.maximum(present, floor)) - np.log(np.maximum(1 - present, floor)))


def _labels_at(probabilities: NDArray[Any], temperature: float, floor: float) -> NDArray[Any]:
    logits = _label_logits(probabilities, floor)
    logits /= logits.dtype.type(-temperature)
    np.clip(logits, -LARGEST, LARGEST, out=logits)
    np.exp(logits, out=logits)
    logits += 1
    np.reciprocal(logits, out=logits)
    return logits


def _precision(probabilities: NDArray[Any]) -> type[np.floating[Any]]:
    return np.float64 if probabilities.dtype == np.float64 else np.float32
