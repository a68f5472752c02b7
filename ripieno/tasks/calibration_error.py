"""Calibration error and Brier score of probabilities, NumPy only.

The calibration error is the mean distance of confidence and accuracy over bins of equal mass (Guo et al., "On
calibration of modern neural networks", 2017, equation 3; Nixon et al., "Measuring calibration in deep learning", 2019,
for the bins). A finite sample makes it too large: chance alone separates confidence and accuracy in each bin. The
bootstrap shows by how much, and the value is corrected by that (Efron and Tibshirani, "An introduction to the
bootstrap", 1993, section 10.6); the interval is the basic one, which has the same correction. It begins at 0 where
chance alone explains the error: where resamples differ as much from the sample as it does from perfect calibration.

`confidence` and `right` are (samples,) or (samples, labels): probabilities of the likelier answer, and its correctness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Floats

BINS = 15
"""Number of bins of equal mass."""
RESAMPLES = 1000
"""Resamples of the bootstrap."""
COVERED = 0.95
"""Share of the resamples within the interval."""


@dataclass(frozen=True)
class CalibrationBin:
    """Answers of similar confidence: their number, mean confidence and accuracy (0..1)."""

    count: int
    low: float
    """confidence from which the bin begins"""
    high: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class CalibrationError:
    """Calibration error, corrected for the size of the sample, with its 95 % interval."""

    value: float
    low: float
    high: float
    bins: tuple[CalibrationBin, ...]
    """in the order of confidence; without empty ones"""


def measure_calibration(
    confidence: NDArray[Any], right: NDArray[Any], bins: int = BINS, resamples: int = RESAMPLES, seed: int = 0
) -> CalibrationError:
    """Return the calibration error of answers, with the interval of a bootstrap over samples."""
    found = calibration_bins(confidence, right, bins)
    numbers = _bin_numbers(confidence, bins)
    # error = sum over bins of |sum of (confidence - right)| / answers, so that a resample needs sums by sample and bin
    samples, answers = len(confidence), max(1, confidence.size)
    gaps = np.zeros((samples, bins))
    rows = np.repeat(np.arange(samples), confidence.size // max(1, samples))
    np.add.at(gaps, (rows, numbers), (confidence.astype(np.float64) - right).reshape(-1))
    generator = np.random.default_rng(seed)
    drawn, chance, sums = np.empty(resamples), np.empty(resamples), gaps.sum(axis=0)
    error = float(np.abs(sums).sum() / answers)
    for number in range(resamples):
        times = np.bincount(generator.integers(0, samples, samples), minlength=samples)
        resampled = times @ gaps
        drawn[number] = np.abs(resampled).sum() / answers
        chance[number] = np.abs(resampled - sums).sum() / answers
    low, high = np.quantile(drawn, ((1 - COVERED) / 2, (1 + COVERED) / 2))
    begin = 2 * error - float(high) if error > np.quantile(chance, (1 + COVERED) / 2) else 0.0
    corrected = max(0.0, 2 * error - float(drawn.mean()))
    return CalibrationError(corrected, max(0.0, begin), max(0.0, 2 * error - float(low)), found)


def calibration_bins(confidence: NDArray[Any], right: NDArray[Any], bins: int = BINS) -> tuple[CalibrationBin, ...]:
    """Return the bins of equal mass that hold answers; equal confidences are in one bin."""
    numbers, edges = _bin_numbers(confidence, bins), _edges(confidence, bins)
    counts = np.bincount(numbers, minlength=bins)
    sums = np.bincount(numbers, confidence.reshape(-1).astype(np.float64), bins)
    hits = np.bincount(numbers, right.reshape(-1), bins)
    return tuple(
        CalibrationBin(int(n), float(edges[i]), float(edges[i + 1]), float(sums[i] / n), float(hits[i] / n))
        for i, n in enumerate(counts)
        if n
    )


def error_of_bins(bins: tuple[CalibrationBin, ...]) -> float:
    """Return the mean distance of confidence and accuracy, without a correction; 0 without any answer."""
    answers = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / answers if answers else 0.0


def confident_answers(probabilities: NDArray[Any], targets: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return confidence and correctness of predictions: (samples,) of classes, (samples, labels) of labels.

    The answer of a label is its likelier value.
    """
    if targets.ndim == 1:
        return probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    return np.maximum(probabilities, 1 - probabilities), (probabilities >= 0.5) == (targets > 0)


def calibration_error(probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the calibration error of predictions of classes or labels, without a correction."""
    return error_of_bins(calibration_bins(*confident_answers(probabilities, targets)))


def brier_score(probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean squared distance of probabilities from the truth: summed over classes, 0..2; of labels the mean.

    Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    if targets.ndim == 1:
        truth = np.take_along_axis(probabilities, targets[:, None], axis=1)[:, 0].astype(np.float64)
        squares: Floats = np.einsum("ij,ij->i", probabilities, probabilities, dtype=np.float64)
        return float((squares - 2 * truth + 1).mean())
    return float(((probabilities.astype(np.float64) - targets) ** 2).mean())


def _edges(confidence: NDArray[Any], bins: int) -> Floats:
    """Return the quantiles of the confidences at the ends of the bins (bins + 1,)."""
    if not confidence.size:
        return np.linspace(0, 1, bins + 1)
    return np.asarray(np.quantile(confidence.astype(np.float64), np.linspace(0, 1, bins + 1)))


def _bin_numbers(confidence: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """Return the bin of each answer, in the order of `confidence.reshape(-1)`."""
    flat = confidence.reshape(-1).astype(np.float64)
    return np.searchsorted(_edges(confidence, bins)[1:-1], flat)
