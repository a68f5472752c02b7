"""Class priors that differ from those of training: estimated from unlabelled predictions, and corrected.

Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", 2002: the
estimate is that of highest likelihood, by expectation maximisation. It assumes that only the shares of the classes have
changed, not how a class looks. Pseudo-counts keep it near the shares of training (Dirichlet prior): without them it
drifts away where nothing has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.types import Float32s, Floats

LEAST = 1e-6
"""Least share of a class: one that was never seen still has a share."""
STEPS = 1000
"""Most steps of expectation maximisation."""
CONVERGED = 1e-7
"""Largest change of a share at which it stops."""


@dataclass(frozen=True, eq=False)
class PriorCorrection:
    """Shares of the classes before and after a correction."""

    trained: Floats
    """(classes,), of the samples that the classifier was fitted to"""
    estimated: Floats
    """(classes,), of the samples that were predicted"""
    answers: int
    """number of predictions that the estimate is of"""
    known: bool = True
    """whether `trained` is known; otherwise it is equal shares"""

    def apply(self, probabilities: NDArray[Any]) -> Float32s:
        """Return probabilities (samples, classes) under the estimated shares, in single precision."""
        return reweigh(probabilities, self.trained, self.estimated)


def correct_prior(probabilities: NDArray[Any], trained: ArrayLike = ()) -> tuple[Float32s, PriorCorrection]:
    """Estimate the shares of the classes in `probabilities` (samples, classes), and return them corrected.

    `trained` (classes,) are the shares of training; empty: equal ones. There are as many pseudo-counts as samples.
    Raises SelectionError for arrays of another shape.
    """
    known = np.size(trained) > 0
    shares = _shares(trained if known else np.ones(np.shape(probabilities)[-1]))
    estimated = estimate_prior(probabilities, shares, len(probabilities))
    correction = PriorCorrection(shares, estimated, len(probabilities), known)
    return correction.apply(probabilities), correction


def estimate_prior(probabilities: NDArray[Any], trained: ArrayLike, pseudo_counts: float = 0.0) -> Floats:
    """Return the shares (classes,) of the classes among the samples with `probabilities` (samples, classes).

    `trained` (classes,) are the shares of training, which `pseudo_counts` samples are added of. Raises SelectionError
    for arrays of another shape, and for negative pseudo-counts.
    """
    shares = _shares(trained)
    rows = np.asarray(probabilities, np.float64)
    if rows.ndim != 2 or rows.shape[1:] != shares.shape or not len(rows):
        raise SelectionError(f"probabilities have shape {rows.shape}, expected (samples, {len(shares)}) with a sample")
    if not pseudo_counts >= 0:
        raise SelectionError(f"pseudo_counts {pseudo_counts:g} is invalid: expected 0 or more")
    likelihoods = rows / shares
    estimate = shares
    for _ in range(STEPS):
        joint = likelihoods * estimate
        posterior = joint / np.maximum(joint.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        counts = posterior.sum(axis=0) + pseudo_counts * shares
        following = counts / counts.sum()
        change = float(np.abs(following - estimate).max())
        estimate = following
        if change < CONVERGED:
            break
    return _shares(estimate)


def reweigh(probabilities: NDArray[Any], trained: ArrayLike, present: ArrayLike) -> Float32s:
    """Return probabilities (samples, classes) under the shares `present` instead of `trained`, each (classes,)."""
    factors = _shares(present) / _shares(trained)
    rows = np.asarray(probabilities, np.float64) * factors
    total = rows.sum(axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(total, np.finfo(np.float64).tiny), np.float32)


def _shares(values: ArrayLike) -> Floats:
    """Return shares that sum to one, none of them below `LEAST` by much."""
    shares = np.asarray(values, np.float64)
    total = shares.sum()
    if shares.ndim != 1 or not np.isfinite(shares).all() or shares.min(initial=0) < 0 or not total > 0:
        raise SelectionError("shares of classes are invalid: expected numbers from 0 on, one for each class")
    shares = np.maximum(shares / total, LEAST)
    return np.asarray(shares / shares.sum())
