"""Evidence by cross-validation that what is fitted helps on samples that it was not fitted to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Floats

FOLDS = 5
"""Number of folds of the cross-validation that decides whether something fitted is kept."""
EVIDENCE = 1.0
"""Standard errors by which the cross-validated log-likelihood must gain, so that it is kept."""


def fold_masks(samples: int, folds: int) -> list[NDArray[np.bool_]]:
    """Return the mask (samples,) of each fold: a random partition into parts of equal size, the same at every call."""
    number = np.random.default_rng(0).permutation(samples) % folds
    return [number == fold for fold in range(folds)]


def is_evident(gains: Floats) -> bool:
    """Return whether the gains in log-likelihood of independent samples (samples,) are evidence enough."""
    return len(gains) >= FOLDS and bool(gains.sum() > EVIDENCE * gains.std() * len(gains) ** 0.5)
