"""Uncertainty of predictions: entropy, what the members disagree about, and which samples to leave unanswered.

All are in nats and one number a sample. `predictions` are (samples, *output) or (members, samples, *output), activated.
Of several labels, taken as independent, the numbers are sums; of pixels they are means. Arrays may be memory-mapped:
they are read in blocks of samples.

The mutual information is the entropy of the members' weighted mean less the weighted mean of their entropies. It is
zero where the members agree, however uncertain they are, and large on samples unlike those of training (Depeweg et al.,
"Decomposition of uncertainty in Bayesian deep learning", 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.tasks.metrics import FLOOR
from ripieno.tasks.pixels import prediction_blocks
from ripieno.types import Float32s, Floats, OutputActivation

QUANTILES = 101
"""Number of quantiles that describe the validation samples: one at each percent."""


def entropy(predictions: NDArray[Any], activation: OutputActivation) -> Float32s:
    """Return the entropy (samples,) of probabilities, nats. `activation` is "softmax" or "sigmoid"."""
    found = np.empty(len(predictions), np.float32)
    for block in prediction_blocks(predictions):
        found[block] = _mean_of_pixels(_entropies(predictions[block], activation))
    return np.maximum(found, 0)  # half precision may round a probability above one


def mutual_information(
    predictions: NDArray[Any] | Sequence[NDArray[Any]], weights: Floats, activation: OutputActivation
) -> Float32s:
    """Return the mutual information (samples,) of what is true and which member is asked, nats, 0 or more.

    `predictions` are (members, samples, *output), `weights` (members,) of sum 1.
    """
    found = np.empty(len(predictions[0]), np.float32)
    for block in prediction_blocks(predictions[0]):
        mean: Float32s = np.zeros(predictions[0][block].shape, np.float32)
        expected: Float32s = np.zeros(mean.shape[:-1], np.float32)
        for weight, own in zip(weights.astype(np.float32), predictions, strict=True):
            mean += weight * own[block]
            expected += weight * _entropies(own[block], activation)
        found[block] = _mean_of_pixels(_entropies(mean, activation) - expected)
    return np.maximum(found, 0)


def geometric_spread(deviations: NDArray[Any]) -> Float32s:
    """Return the geometric mean (samples,) of the standard deviations (samples, targets).

    Its order does not depend on the units of the targets.
    """
    with np.errstate(divide="ignore"):  # members that agree: the logarithm of zero
        logs = np.log(deviations.reshape(len(deviations), -1), dtype=np.float64)
    return np.asarray(np.exp(logs.mean(axis=1)), np.float32)


def quantiles_of(values: NDArray[Any]) -> tuple[float, ...]:
    """Return the `QUANTILES` quantiles of `values` (samples,), from the smallest to the largest."""
    levels = np.linspace(0, 1, QUANTILES)
    return tuple(np.quantile(np.asarray(values, np.float64), levels).tolist())


def quantile_among(values: NDArray[Any], quantiles: Sequence[float]) -> Float32s:
    """Return the share (samples,) of the samples behind `quantiles` that have at most the value of each sample, 0..1.

    Between two quantiles it is interpolated. Of equal quantiles the last one counts.
    """
    known = np.asarray(quantiles, np.float64)
    values = np.asarray(values, np.float64)
    above = np.clip(np.searchsorted(known, values, "right"), 1, len(known) - 1)
    low, high = known[above - 1], known[above]
    part = np.clip((values - low) / np.where(high > low, high - low, 1), 0, 1)
    shares = (above - 1 + np.where(high > low, part, values >= high)) / (len(known) - 1)
    return shares.astype(np.float32)


class RiskCoverage(NamedTuple):
    """Error of what is answered when the most certain samples are; those of equal certainty go together."""

    coverage: Floats
    """(steps,) share of the samples that is answered; it rises to 1"""
    risk: Floats
    """(steps,) their mean error"""
    certainty: Floats
    """(steps,) of the least certain one of them"""


def risk_coverage(certainty: NDArray[Any], errors: NDArray[Any]) -> RiskCoverage:
    """Return the risk-coverage curve of samples with `certainty` (samples,) and `errors` (samples,)."""
    ordered, total, count = _most_certain_first(certainty, errors)
    return RiskCoverage(count / len(errors), total / count, ordered)


def risk_coverage_area(certainty: NDArray[Any], errors: NDArray[Any]) -> float:
    """Return the area under the risk-coverage curve: the mean over all numbers of answered samples of their mean error.

    Samples of equal certainty are in random order, of which the expected area is returned.
    """
    _, total, count = _most_certain_first(certainty, errors)
    sizes = np.diff(count, prepend=0)
    shared = np.repeat(np.diff(total, prepend=0.0) / sizes, sizes)
    return float((np.cumsum(shared) / np.arange(1, len(shared) + 1)).mean())


def abstention_threshold(certainty: NDArray[Any], errors: NDArray[Any], target: float) -> float:
    """Return the least certainty of an answer, so that the expected error of what is answered is at most `target`.

    `errors` (samples,) are 0..1. To the errors of the answered samples one is added, and one to their number: the error
    of a next sample is at most that.
    Raises SelectionError when `target` is not in (0, 1), and when no threshold reaches it: too few samples are certain.
    """
    if not 0 < target < 1:
        raise SelectionError(f"the error of answers is {target:g}, must be between 0 and 1, such as 0.02")
    least = least_samples(target)
    if len(errors) < least:
        raise SelectionError(
            f"{len(errors)} validation samples are too few for an error of {target:g}: expected at least {least}"
        )
    ordered, total, count = _most_certain_first(certainty, errors)
    reached = np.flatnonzero((total + 1) / (count + 1) <= target)
    if not len(reached):
        best = float(((total + 1) / (count + 1)).min())
        raise SelectionError(f"no answers have an error of {target:g}: the least on validation samples is {best:.3g}")
    return float(ordered[reached[-1]])


def least_samples(target: float) -> int:
    """Return the least number of samples without an error that shows an error of at most `target`."""
    return math.ceil(1 / target - 1e-9) - 1


def _most_certain_first(certainty: NDArray[Any], errors: NDArray[Any]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return the certainties (steps,), falling, with the sum of errors and the number of samples up to each."""
    order = np.argsort(-np.asarray(certainty, np.float64), kind="stable")
    ordered = np.asarray(certainty, np.float64)[order]
    total = np.cumsum(np.asarray(errors, np.float64)[order])
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return ordered[last], total[last], last + 1


def _entropies(probabilities: NDArray[Any], activation: OutputActivation) -> Float32s:
    """Return the entropy over the last axis, of labels the sum over them."""
    assert activation in ("softmax", "sigmoid"), "values have no entropy"
    single = np.asarray(probabilities, np.float32)
    parts = _surprise(single)
    if activation == "sigmoid":
        parts += _surprise(1 - single)
    return np.asarray(parts.sum(axis=-1))


def _surprise(probabilities: Float32s) -> Float32s:
    logs = np.maximum(probabilities, np.float32(FLOOR))
    np.log(logs, out=logs)
    logs *= -probabilities
    return logs


def _mean_of_pixels(values: Float32s) -> Float32s:
    """Return one number a sample: the mean over its pixels, where it has any."""
    return values if values.ndim == 1 else np.asarray(values.reshape(len(values), -1).mean(axis=1))
