"""Standard deviation of the errors of a regression, from the spread of its members.

The error of a value is taken as normal, with a variance of `(scale * spread)**2 + floor**2`: what the members disagree
about, scaled, and what they all miss. Scale and floor of each target have the highest likelihood on validation samples.
The scale is 0 where its cross-validated likelihood gains too little over that of one deviation for all samples: the
spread of the members then tells nothing of their error. The floor is never 0, so that members that agree give no
certain value.

`predictions`, `targets` and `spread`, the standard deviation of the members, are (samples, targets).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.evidence import FOLDS, fold_masks, is_evident
from ripieno.types import Float32s, Floats, SpreadCalibration

LEAST = 1e-3
"""Smallest floor, as a share of the root of the mean squared error."""
LARGEST = 1e3
"""Largest root of the mean scaled variance, in the same unit."""
STARTS = (0.5, 0.05)
"""Shares of the variance that is scaled, from which the likelihood is maximised."""
FEWEST = 1e-6
"""Least deviation where all predictions are exact, as a share of that of the target."""


def fit_spread(predictions: NDArray[Any], targets: NDArray[Any], spread: NDArray[Any]) -> SpreadCalibration:
    """Return scale and floor of each target, fitted to samples that the members were not trained on."""
    errors = np.asarray(predictions, np.float64) - targets
    widths = np.asarray(spread, np.float64).reshape(errors.shape)
    pairs = [_fit_target(*columns) for columns in zip(errors.T, widths.T, np.asarray(targets).T, strict=True)]
    scales, floors = zip(*pairs, strict=True)
    return SpreadCalibration(scales, floors, len(errors))


def standard_deviation(spread: NDArray[Any], calibration: SpreadCalibration) -> Float32s:
    """Return the standard deviation of the error of each value (samples, targets)."""
    scaled = np.asarray(spread, np.float64) * np.asarray(calibration.scales)
    return np.asarray(np.hypot(scaled, np.asarray(calibration.floors)), np.float32)


def _fit_target(errors: Floats, widths: Floats, targets: NDArray[Any]) -> tuple[float, float]:
    """Return scale and floor of a target."""
    unit = float(np.sqrt(np.mean(errors**2)))
    least = max(FEWEST * float(np.std(targets, dtype=np.float64)), float(np.finfo(np.float32).tiny))
    if unit <= least or not widths.any() or len(errors) < FOLDS:
        return 0.0, max(unit, least)
    spread = float(np.sqrt(np.mean(widths**2)))
    squares, shares = (errors / unit) ** 2, (widths / spread) ** 2
    gains = np.empty(len(errors))
    for held in fold_masks(len(errors), FOLDS):
        scaled, rest = _most_likely(squares[~held], shares[~held])
        alone = np.full(int(held.sum()), squares[~held].mean())
        gains[held] = _losses(errors[held] / unit, alone) - _losses(errors[held] / unit, scaled * shares[held] + rest)
    if not is_evident(gains):
        return 0.0, unit
    scaled, rest = _most_likely(squares, shares)
    return unit * math.sqrt(scaled) / spread, unit * math.sqrt(rest)


def _most_likely(squares: Floats, shares: Floats) -> tuple[float, float]:
    """Return the factors of `shares` and of 1 whose sum is the most likely variance of the squared errors."""
    from scipy.optimize import minimize

    def loss(logarithms: Floats) -> tuple[float, Floats]:
        scaled, rest = np.exp(logarithms)
        variance = scaled * shares + rest
        slope = 0.5 * (1 - squares / variance) / variance
        gradient = np.array([scaled * (slope * shares).mean(), rest * slope.mean()])
        return float(0.5 * (np.log(variance) + squares / variance).mean()), gradient

    whole = max(float(squares.mean()), LEAST**2)
    bounds = [(2 * math.log(LEAST**2), 2 * math.log(LARGEST)), (2 * math.log(LEAST), 2 * math.log(LARGEST))]
    starts = (np.log([share * whole, (1 - share) * whole]) for share in STARTS)
    found = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
    scaled, rest = np.exp(min(found, key=lambda one: float(one.fun)).x)
    return float(scaled), float(rest)


def _losses(errors: Floats, variance: Floats) -> Floats:
    """Return the negative logarithm of the normal density of `errors`."""
    return np.asarray(0.5 * (np.log(2 * math.pi * variance) + errors**2 / variance))
