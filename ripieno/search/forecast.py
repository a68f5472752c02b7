"""Forecasts of a search that runs: the epochs that its trials will train, and its lowest loss at the end.

Pure: these functions read no clock and no file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import exp, log, log2
from statistics import median

from ripieno.search.scheduler import Scheduler

DAMPED = 0.5
"""Share of the fall of the lowest loss by which it goes on to fall: easy gains come first."""
LEAST_JOBS = 12
"""Least number of ended jobs for a forecast of the lowest loss."""
EARLIEST, LATEST = 0.1, 0.35
"""Shares of a search between which there is one."""
DRY_RUNS = 5
"""Number of dry runs: the promotions of one depend much on its losses."""
DRY_TRIALS = 200
"""Largest number of trials of a dry run; the epochs of more are in proportion."""


def expected_epochs(make: Callable[[int], Scheduler], trials: int) -> int:
    """Return about how many epochs a search of `trials` trials trains: the median of dry runs of its scheduler.

    `make` makes a scheduler of a number of trials. Each trial of a dry run has a random loss that it keeps.
    """
    count = min(trials, DRY_TRIALS)
    return round(median(_dry_run(make(count), seed) for seed in range(DRY_RUNS)) * trials / count)


def _dry_run(scheduler: Scheduler, seed: int) -> int:
    """Return the epochs that a search trains in which each job ends before the next one starts."""
    generator = random.Random(seed)
    losses: dict[int, float] = {}
    epochs = 0
    while (step := next(scheduler.candidates(), None)) is not None:
        scheduler.start(step)
        epochs += step.stop - step.start
        scheduler.tell(step, losses.setdefault(step.trial, generator.random()))
    return epochs


def predict_best_loss(lowest: Sequence[float], share: float) -> float | None:
    """Predict the lowest loss at the end of a search, of which `share` is done.

    `lowest` is the lowest loss after each ended job. It fell by some factor for each doubling of the jobs, in the mean
    of the last two doublings; to the end it is taken to fall by that factor to the power of `DAMPED` for each doubling.
    On 34 tasks of LCBench (`benchmarks/search/forecast.py`) its median error is 23 % when a tenth of the jobs has ended
    and 13 % at a quarter, half of that of the lowest loss so far. Later that is as good, so there is no forecast after
    `LATEST`.

    Returns None with fewer than `LEAST_JOBS` jobs, outside `EARLIEST` and `LATEST`, for losses that are not positive,
    and where the loss did not fall.
    """
    if len(lowest) < LEAST_JOBS or not EARLIEST <= share <= LATEST:
        return None
    before, now = lowest[len(lowest) // 4 - 1], lowest[-1]
    if not 0 < now < before:
        return None
    return now * exp(DAMPED * log2(1 / share) / 2 * log(now / before))
