"""Detection of unknown samples by a number that is larger on them: area under the ROC curve, with its interval."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Floats

NORMAL = 1.959964
"""Standard errors on each side of a 95 % interval."""


class DetectionArea(NamedTuple):
    """Probability that an unknown sample has a larger number than a known one, with its 95 % interval; 0.5: chance."""

    value: float
    low: float
    high: float


def detection_area(known: NDArray[Any], unknown: NDArray[Any]) -> DetectionArea:
    """Return the area under the ROC curve of `known` (samples,) and `unknown` (samples,) numbers; ties count half.

    The standard error is that of DeLong et al., "Comparing the areas under two or more correlated receiver operating
    characteristic curves", 1988, from ranks.
    """
    ranks = _ranks(np.concatenate([known, unknown]))
    # by each known sample, the share of the unknown ones above it; by each unknown one, of the known ones below it
    above = 1 - (ranks[: len(known)] - _ranks(known)) / len(unknown)
    below = (ranks[len(known) :] - _ranks(unknown)) / len(known)
    area = float(below.mean())
    variance = sum(part.var(ddof=1) / len(part) if len(part) > 1 else 0.25 for part in (above, below))
    half = NORMAL * float(np.sqrt(variance))
    return DetectionArea(area, max(0.0, area - half), min(1.0, area + half))


def _ranks(values: NDArray[Any]) -> Floats:
    """Return the ranks of values from 1 on, means of ranks where they are equal."""
    from scipy.stats import rankdata

    ranks: Floats = rankdata(np.asarray(values, np.float64))
    return ranks
