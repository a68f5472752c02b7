"""Coverage that prediction sets and intervals have on samples with targets, by class, label or target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.conformal import gives_intervals, interval, prediction_set, share_held
from ripieno.tasks.registry import kind_of
from ripieno.types import Coverage, Task

ERROR = 0.05
"""Probability that a binomial interval misses the truth."""
ALL = "all"
"""Name of the row of all samples."""


@dataclass(frozen=True)
class ObservedCoverage:
    """Share of samples whose set or interval holds the truth, with its 95 % binomial interval."""

    name: str
    """class, label or target; `all` for all samples"""
    samples: int
    value: float
    low: float
    high: float
    size: float
    """mean number of answers in a set; of a label the share of sets that have it; of a target the mean width"""


def observed_coverage(
    predictions: NDArray[Any], targets: NDArray[Any], task: Task, coverage: Coverage, spread: NDArray[Any] | None = None
) -> list[ObservedCoverage]:
    """Return what `coverage` gives on samples: of all of them, then of each class or label that occurs; or each target.

    `spread` (samples, targets) is as in `ripieno.tasks.conformal`.
    """
    if gives_intervals(kind_of(task)):
        lower, upper = interval(predictions, coverage, spread)
        inside = (targets >= lower) & (targets <= upper)
        columns = zip(task.names, inside.T, (upper - lower).mean(axis=0), strict=True)
        return [_row(name, own.astype(np.float64), float(width)) for name, own, width in columns]
    sets = prediction_set(predictions, coverage)
    held, sizes = share_held(sets, targets), sets.sum(axis=1)
    rows = [_row(ALL, held[~np.isnan(held)], float(sizes.mean()))]
    for number, name in enumerate(task.names):
        if targets.ndim == 1:
            own = targets == number
            found, size = held[own], sizes[own]
        else:
            own = targets[:, number] > 0
            found, size = sets[own, number].astype(np.float64), sets[:, number]
        if own.any():
            rows.append(_row(name, found, float(size.mean())))
    return rows


def binomial_interval(successes: float, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of Clopper and Pearson (1934) of a share.

    Shares of a sample between 0 and 1 may be summed: their variance is smaller, so that the interval is wide enough.
    """
    from scipy.stats import beta

    low = beta.ppf(ERROR / 2, successes, samples - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(1 - ERROR / 2, successes + 1, samples - successes) if successes < samples else 1.0
    return float(low), float(high)


def _row(name: str, held: NDArray[Any], size: float) -> ObservedCoverage:
    """Return the row of samples of which a share `held` (samples,) is in their sets."""
    value = float(held.mean()) if len(held) else float("nan")
    return ObservedCoverage(name, len(held), value, *binomial_interval(float(held.sum()), len(held)), size)
