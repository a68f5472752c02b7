"""Losses and scores of predictions: those of the library, and the squared error of a regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.metrics import FLOOR, accuracy, cross_entropy, macro_f1, true_class

__all__ = ["FLOOR", "accuracy", "cross_entropy", "macro_f1", "squared_error", "true_class"]


def squared_error(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the mean over samples of the squared distance; both are (samples,) or (samples, outputs)."""
    residuals = predictions.astype(np.float64) - targets
    return float((residuals * residuals).sum() / len(residuals))
