"""Prediction of a measured cost before training: a ridge regression of its logarithm on features of a network.

Costs are products more than sums: a network twice as wide takes about four times as long, whatever its depth. So both
the cost and the features, such as operations and parameters, are logarithms. How far the model is off is measured by
leaving out one network at a time. Pure: arrays in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.types import Floats

LEAST = 4
"""Smallest number of networks that a model is fitted to."""
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Ridge penalties of which the one with the smallest error is taken, on features of unit variance."""


@dataclass(frozen=True)
class CostModel:
    """Model of one kind of cost, fitted to networks that were measured on a kind of device."""

    features: tuple[str, ...]
    means: tuple[float, ...]
    """mean of each feature"""
    slopes: tuple[float, ...]
    """change of the cost's logarithm by each feature"""
    intercept: float
    """mean of the cost's logarithm"""
    error: float
    """typical ratio of a cost and its prediction, above 1: the root mean square by leaving one out, of logarithms"""
    samples: int
    """number of networks that it is fitted to"""

    def predict(self, features: Mapping[str, float]) -> float:
        """Predict the cost of a network; a feature that is absent counts as 0."""
        parts = zip(self.features, self.means, self.slopes, strict=True)
        return math.exp(self.intercept + sum(slope * (features.get(name, 0.0) - mean) for name, mean, slope in parts))


def fit_cost_model(features: Sequence[Mapping[str, float]], costs: Sequence[float]) -> CostModel | None:
    """Fit a model to networks with `features` and measured `costs`, above 0; None with fewer than `LEAST`.

    A feature that a network lacks counts as 0. One that is the same for all, or that only one has, is left out.
    """
    if len(costs) < LEAST:
        return None
    names = sorted({name for row in features for name in row})
    rows = np.array([[row.get(name, 0.0) for name in names] for row in features], np.float64).reshape(len(costs), -1)
    target = np.log(np.asarray(costs, np.float64))
    deviations: Floats = np.asarray(rows.std(axis=0), np.float64)
    varies = deviations > 1e-9 * (1 + np.abs(rows).max(axis=0, initial=0.0))
    varied = np.flatnonzero(varies & (np.count_nonzero(rows, axis=0) > 1))
    means, deviations = rows.mean(axis=0)[varied], deviations[varied]
    scaled: Floats = (rows[:, varied] - means) / deviations
    centred: Floats = target - target.mean()
    errors = [_left_out_error(scaled, centred, penalty) for penalty in PENALTIES]
    best = int(np.argmin(errors))
    slopes = _ridge(scaled, centred, PENALTIES[best]) / deviations
    return CostModel(
        features=tuple(names[i] for i in varied),
        means=tuple(means.tolist()),
        slopes=tuple(slopes.tolist()),
        intercept=float(target.mean()),
        error=math.exp(errors[best]),
        samples=len(costs),
    )


def _ridge(rows: Floats, target: Floats, penalty: float) -> Floats:
    gram = rows.T @ rows + penalty * np.eye(rows.shape[1])
    return np.asarray(np.linalg.solve(gram, rows.T @ target), np.float64)


def _left_out_error(rows: Floats, target: Floats, penalty: float) -> float:
    """Return the root mean square error of each row's target, predicted without this row."""
    count = len(rows)
    gram = rows.T @ rows + penalty * np.eye(rows.shape[1])
    hat = rows @ np.linalg.solve(gram, rows.T) + 1 / count  # the mean is fitted too
    residuals = (target - hat @ target) / (1 - np.diagonal(hat))
    return float(np.sqrt(np.mean(residuals**2)))
