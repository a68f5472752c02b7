"""Coverage that prediction sets and intervals have on samples with targets, by class, label or target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.conformal import gives_intervals, interval, prediction_set, share_held
from ripieno.tasks.registry import kind_of
from ripieno.types import IGNORED, Coverage, Task

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


class PixelCoverage:
    """Coverage of sets of pixels, collected in blocks of samples: the share of an image's pixels whose set holds them.

    Pixels of an image are much alike, so that the intervals count images.
    """

    def __init__(self, task: Task, coverage: Coverage) -> None:
        self.task, self.coverage = task, coverage
        self._blocks: list[NDArray[np.float64]] = []
        """each (3, samples, classes): counted pixels by true class, those held, and the sizes of their sets"""

    def add(self, predictions: NDArray[Any], targets: NDArray[Any]) -> None:
        """Add samples: predictions (samples, height, width, classes) and masks (samples, height, width)."""
        sets, classes = prediction_set(predictions, self.coverage), len(self.task.names)
        samples, rows, columns = np.nonzero(targets != IGNORED)
        true = targets[samples, rows, columns].astype(np.int64)
        places, length = samples * classes + true, len(targets) * classes
        held, sizes = sets[samples, rows, columns, true], sets.sum(axis=-1)[samples, rows, columns]
        sums = [np.bincount(places, weights, length) for weights in (None, held, sizes)]
        self._blocks.append(np.stack(sums).astype(np.float64).reshape(3, len(targets), classes))

    def rows(self) -> list[ObservedCoverage]:
        """Return the coverage of all pixels, and of those of each class that occurs, by image."""
        counts, held, sizes = np.concatenate(self._blocks, axis=1)
        found = []
        for name, chosen in ((ALL, slice(None)), *((name, [i]) for i, name in enumerate(self.task.names))):
            total = counts[:, chosen].sum(axis=1)
            if (shown := total > 0).any():
                shares = held[shown][:, chosen].sum(axis=1) / total[shown]
                found.append(_row(name, shares, float(sizes[shown][:, chosen].sum() / total.sum())))
        return found


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
