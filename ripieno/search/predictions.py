"""Predictions that a sampler makes of its trials, compared with their results: a fold over the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.types import Floats

LEAST = 3
"""Minimum number of trials with a rank correlation."""


@dataclass(frozen=True)
class TrialPrediction:
    """Result that a sampler predicts of a trial when it chooses the configuration."""

    step: int
    """step of the search, from 1, such as the number of blocks of a cell"""
    epoch: int
    """epoch that the numbers are for"""
    loss: float | None = None
    """loss by which trials are ranked; None: not predicted"""
    seconds: float | None = None
    """seconds of training to the epoch; None: not predicted"""


@dataclass(frozen=True)
class ComparedPrediction:
    """Prediction of a trial with the loss and the seconds of training that were measured at the same epoch."""

    trial: int
    prediction: TrialPrediction
    loss: float
    seconds: float


@dataclass(frozen=True)
class StepCorrelation:
    """Spearman's rank correlations of predicted and measured values of the trials of one step."""

    step: int
    trials: int
    """with a prediction and a result"""
    loss: float | None
    """None: for fewer than three trials, or of values that are all equal"""
    seconds: float | None


class PredictionChecks:
    """Comparison of `predictions`, by trial, with the results of the jobs in the order in which they ended."""

    def __init__(self, predictions: Mapping[int, TrialPrediction]) -> None:
        self._predictions = predictions
        self._seconds: dict[int, float] = {}  # of training, by trial
        self._compared: list[ComparedPrediction] = []
        self._correlations: tuple[StepCorrelation, ...] | None = ()

    def add(self, trial: int, epoch: int, loss: float | None, seconds: float) -> None:
        """Add the result of a job that trained `trial` to `epoch`, with its own `seconds`; loss None: it failed."""
        prediction = self._predictions.get(trial)
        if prediction is None or (prediction.loss is None and prediction.seconds is None):
            return
        self._seconds[trial] = self._seconds.get(trial, 0.0) + seconds
        if loss is not None and epoch == prediction.epoch:
            self._compared.append(ComparedPrediction(trial, prediction, loss, self._seconds[trial]))
            self._correlations = None

    @property
    def compared(self) -> tuple[ComparedPrediction, ...]:
        """Predictions with a result, in the order of the results."""
        return tuple(self._compared)

    def correlations(self) -> tuple[StepCorrelation, ...]:
        """Return the rank correlations of each step, ascending."""
        if self._correlations is None:
            self._correlations = step_correlations(self._compared)
        return self._correlations


def step_correlations(compared: Sequence[ComparedPrediction]) -> tuple[StepCorrelation, ...]:
    """Return the rank correlations of each step, ascending."""
    found = []
    for step in sorted({one.prediction.step for one in compared}):
        own = [one for one in compared if one.prediction.step == step]
        losses = [(one.prediction.loss, one.loss) for one in own]
        seconds = [(one.prediction.seconds, one.seconds) for one in own]
        found.append(StepCorrelation(step, len(own), rank_correlation(losses), rank_correlation(seconds)))
    return tuple(found)


def rank_correlation(pairs: Sequence[tuple[float | None, float]]) -> float | None:
    """Return Spearman's rank correlation of pairs; those with None are left out.

    It is None for fewer than three pairs, and where all values of a side are equal.
    """
    known = [(a, b) for a, b in pairs if a is not None]
    if len(known) < LEAST:
        return None
    first, second = (_ranks(side) for side in zip(*known, strict=True))
    if first.std() == 0 or second.std() == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Sequence[float]) -> Floats:
    """Return the ranks of values; equal ones have the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean: Floats = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return mean
