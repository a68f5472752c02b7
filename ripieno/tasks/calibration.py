"""Temperatures of probabilities (Guo et al., "On calibration of modern neural networks", 2017, section 4.2).

A temperature T replaces probabilities p by p**(1/T) divided by its sum, after the clip of `metrics.FLOOR`: above 1 they
become less confident, below 1 more. It is fitted to the summed log-likelihood of labelled samples with a Gaussian prior
on log T of mean 0, so that a few samples that are nearly all right do not make a network certain.

Of classes, with the activation "softmax", `probabilities` are (samples, classes) and `labels` (samples,). Several
labels, with the activation "sigmoid", have one temperature: each is a choice between two classes, of the probabilities
p and 1 - p. Their `probabilities` and `labels` of 0 and 1 are (samples, labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.combiners import combine
from ripieno.tasks.metrics import FLOOR, true_class, true_labels
from ripieno.types import Ensemble, Float32s, Floats, Ints, OutputActivation

PRIOR = 0.1
"""Standard deviation of the prior on the logarithm of a temperature."""
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature."""
FOLDS = 5
"""Number of folds of the cross-validation that decides whether a member keeps its temperature."""
LABEL_FLOOR = 2.0**-24
"""Least probability of a label and of its absence: near 1, single precision has no smaller differences."""
LARGEST = 80.0
"""Largest logit of a label, whose exponential is finite in single precision."""
EVIDENCE = 1.0
"""Standard errors by which the cross-validated log-likelihood must gain, so that a member keeps its temperature."""


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
    """Temperature of a member, exactly 1 where the evidence for another is weak, and its rows at it."""

    temperature: float
    rows: CalibratedRows


def apply_temperature(
    probabilities: NDArray[Any], temperature: float, activation: OutputActivation = "softmax"
) -> NDArray[Any]:
    """Return probabilities (..., classes or labels) at `temperature`, in their floating type, half precision as single.

    A temperature of exactly 1 returns them unchanged.
    """
    if temperature == 1.0:
        return probabilities
    if activation == "sigmoid":
        return _labels_at(probabilities, temperature)
    logits = _logits(probabilities)
    logits /= logits.dtype.type(temperature)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def combine_calibrated(
    predictions: Sequence[NDArray[Any]] | NDArray[Any], ensemble: Ensemble, activation: OutputActivation = "softmax"
) -> Float32s:
    """Return what `ensemble` predicts, as served, from the predictions (members, samples, *output) of its members.

    `activation` is that of the kind of task.
    """
    return combine_members(calibrated_members(predictions, ensemble, activation), ensemble, activation)


def calibrated_members(
    predictions: Sequence[NDArray[Any]] | NDArray[Any], ensemble: Ensemble, activation: OutputActivation
) -> NDArray[Any]:
    """Return the predictions (members, samples, *output) of the members of `ensemble`, each at its temperature."""
    temperatures = ensemble.temperatures or (1.0,) * len(ensemble.members)
    pairs = zip(predictions, temperatures, strict=True)
    return np.stack([apply_temperature(np.asarray(p), t, activation) for p, t in pairs])


def combine_members(members: NDArray[Any], ensemble: Ensemble, activation: OutputActivation) -> Float32s:
    """Return what `ensemble` predicts, as `combine_calibrated`, from its `calibrated_members`."""
    combined = combine(members, ensemble.weights, ensemble.combiner, activation)
    return apply_temperature(combined, ensemble.temperature, activation)


def fit_temperature(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    prior: float = PRIOR,
    activation: OutputActivation = "softmax",
) -> float:
    """Return the temperature of highest posterior density, between `COLDEST` and `HOTTEST`.

    `prior` is the standard deviation of log T in nats; infinite: the temperature of highest likelihood.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = _class_logits(probabilities, labels, activation)
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
    probabilities: NDArray[Any], labels: NDArray[Any], temperature: float, activation: OutputActivation = "softmax"
) -> CalibratedRows:
    """Return the true-class probabilities at `temperature` with their derivatives."""
    shape = labels.shape
    logits, labels = _class_logits(probabilities, labels, activation)
    shares = np.exp(logits / logits.dtype.type(temperature))
    shares /= shares.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    mean = np.einsum("ij,ij->i", shares, logits)
    variance = np.einsum("ij,ij,ij->i", shares, logits, logits) - mean * mean
    found = shares[rows, labels], logits[rows, labels] - mean, np.maximum(variance, 0.0)
    return CalibratedRows(*(row.reshape(shape) for row in found))


def calibrate_member(
    probabilities: NDArray[Any], labels: NDArray[Any], activation: OutputActivation = "softmax"
) -> MemberCalibration:
    """Fit the temperature of a member; keep it only if its cross-validated log-likelihood gains by `EVIDENCE`.

    Where temperatures are near 1, fitted ones cost an ensemble more than they gain.
    """
    temperature = fit_temperature(probabilities, labels, activation=activation)
    rows = calibrated_rows(probabilities, labels, temperature, activation)
    truth = true_labels(probabilities, labels) if activation == "sigmoid" else true_class(probabilities, labels)
    plain = np.maximum(truth.astype(np.float64), FLOOR)
    gains = np.empty(plain.shape)
    for held in fold_masks(len(labels), FOLDS):
        gains[held] = np.log(np.maximum(without_fold(rows, temperature, held)[1][held], FLOOR) / plain[held])
    by_sample = gains.reshape(len(labels), -1).sum(axis=1)  # the labels of a sample depend on each other
    if by_sample.sum() > EVIDENCE * by_sample.std() * len(by_sample) ** 0.5:
        return MemberCalibration(temperature, rows)
    return MemberCalibration(1.0, calibrated_rows(probabilities, labels, 1.0, activation)._replace(truth=truth))


def fold_masks(samples: int, folds: int) -> list[NDArray[np.bool_]]:
    """Return the mask (samples,) of each fold: a random partition into parts of equal size, the same at every call."""
    number = np.random.default_rng(0).permutation(samples) % folds
    return [number == fold for fold in range(folds)]


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


def _class_logits(
    probabilities: NDArray[Any], labels: NDArray[Any], activation: OutputActivation
) -> tuple[NDArray[Any], Ints]:
    """Return the logits (rows, classes) with the class (rows,) of each; labels are rows of two classes."""
    if activation != "sigmoid":
        return _logits(probabilities), labels
    logits = _label_logits(probabilities).reshape(-1)
    pairs = np.stack([np.minimum(-logits, 0), np.minimum(logits, 0)], axis=1)
    return pairs, labels.reshape(-1).astype(np.int64)


def _logits(probabilities: NDArray[Any]) -> NDArray[Any]:
    """Return logarithms after the clip, with a maximum of 0 per sample."""
    logits = np.log(np.maximum(probabilities, FLOOR, dtype=_precision(probabilities)))
    logits -= logits.max(axis=-1, keepdims=True)
    return np.asarray(logits)


def _label_logits(probabilities: NDArray[Any]) -> NDArray[Any]:
    """Return the logarithm of p / (1 - p) of each label, after a clip."""
    kind = _precision(probabilities)
    present = np.asarray(probabilities, kind)
    return np.asarray(np.log(np.maximum(present, LABEL_FLOOR)) - np.log(np.maximum(1 - present, LABEL_FLOOR)))


def _labels_at(probabilities: NDArray[Any], temperature: float) -> NDArray[Any]:
    logits = _label_logits(probabilities)
    logits /= logits.dtype.type(-temperature)
    np.clip(logits, -LARGEST, LARGEST, out=logits)
    np.exp(logits, out=logits)
    logits += 1
    np.reciprocal(logits, out=logits)
    return logits


def _precision(probabilities: NDArray[Any]) -> type[np.floating[Any]]:
    return np.float64 if probabilities.dtype == np.float64 else np.float32
