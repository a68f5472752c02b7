"""Calibration of probabilities: reliability and expected calibration error. Pure functions.

`probabilities` are (samples, classes), `labels` (samples,). Guo et al., "On calibration of modern neural networks",
2017, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Number of bins of equal width over confidences 0..1."""


@dataclass(frozen=True)
class Bin:
    """Samples of similar confidence: their number, mean confidence and accuracy (0..1)."""

    count: int
    confidence: float
    accuracy: float


def reliability(probabilities: NDArray[Any], labels: NDArray[np.int64], bins: int = BINS) -> tuple[Bin, ...]:
    """Return the bins from low to high confidence; an empty bin has its middle as confidence, and accuracy 0."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(number, minlength=bins)
    sums = np.bincount(number, weights=confidence, minlength=bins)
    hits = np.bincount(number, weights=right, minlength=bins)
    return tuple(
        Bin(int(n), float(s / n), float(h / n)) if n else Bin(0, (i + 0.5) / bins, 0.0)
        for i, (n, s, h) in enumerate(zip(counts, sums, hits, strict=True))
    )


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Return the mean distance of confidence and accuracy, weighted by samples (equation 3 there); 0 without any."""
    samples = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / samples if samples else 0.0
