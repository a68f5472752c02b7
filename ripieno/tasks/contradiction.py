"""Contradiction of targets by an ensemble that was not trained on them: the less it believes one, the more suspect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.metrics import predicted_labels, true_class, true_labels
from ripieno.tasks.registry import kind_of
from ripieno.types import Floats, Ints, Task

FAR = 3.0
"""Scaled residual from which a value is contradicted: 0.3 % of normal residuals are beyond."""
TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution by the median of its absolute values; a few wrong targets move neither.
"""


class Contradictions(NamedTuple):
    """Samples whose targets are contradicted, the most suspect first."""

    samples: Ints
    """(contradicted,) places among the samples"""
    doubt: Floats
    """(contradicted,) what they are ordered by: the probability that the target is wrong, of values the scaled residual
    """
    suggested: NDArray[Any]
    """(contradicted, ...) targets that the ensemble would give, as in `Dataset`"""


def contradictions(
    predictions: NDArray[Any],
    targets: NDArray[Any],
    task: Task,
    thresholds: Sequence[float] = (),
    spread: NDArray[Any] | None = None,
) -> Contradictions:
    """Return the samples for which the ensemble's answer is not their target.

    The probability of a class or label is the ensemble's; of several labels the least likely one of a sample counts.
    Residuals are divided by the deviation that `spread` (samples, targets) of the members and the median residual give;
    of several targets the largest counts.
    """
    kind = kind_of(task)
    if kind.activation == "identity":
        residuals = np.abs(predictions.astype(np.float64) - targets)
        usual = TO_DEVIATION * np.median(residuals, axis=0)
        variance = usual**2 + (0.0 if spread is None else np.asarray(spread, np.float64) ** 2)
        with np.errstate(divide="ignore", invalid="ignore"):  # a target that is predicted exactly
            scaled = np.where(residuals > 0, residuals / np.sqrt(variance), 0.0)
        doubt, answers = scaled.max(axis=1), predictions
        is_wrong = doubt > FAR
    elif kind.activation == "sigmoid":
        doubt = 1 - true_labels(predictions, targets).astype(np.float64).min(axis=1)
        answers = predicted_labels(predictions, thresholds)
        is_wrong = (answers != targets).any(axis=1)
    else:
        doubt = 1 - true_class(predictions, targets).astype(np.float64)
        answers = predictions.argmax(axis=1)
        is_wrong = answers != targets
    places = np.flatnonzero(is_wrong)
    order = places[np.argsort(-doubt[places], kind="stable")]
    return Contradictions(order, doubt[order], answers[order])
