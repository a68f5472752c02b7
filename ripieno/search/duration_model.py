"""Prediction of job durations from the jobs that ended. Pure: it reads no clock."""

from __future__ import annotations

from collections import deque
from math import ceil, log
from statistics import median

from ripieno.search.scheduler import TrialStep

RECENT = 20
"""Number of recent jobs that count: the load of a machine changes, and workers start up only once."""
FEW = 3
"""Minimum number of jobs of a length; with fewer, jobs of all lengths are used."""
KEPT = 2 / 3
"""Share of jobs that take no longer than predicted."""


class DurationPredictor:
    """Predictor of job durations from their cost.

    Theory of operation. The seconds per unit of cost depend on the job's length (reading a checkpoint and writing a
    member take the same time for one epoch as for nine), on the trial (costs are rough estimates), and on the load. A
    prediction is a product of three factors: the median rate of recent jobs of similar length, the slowness of this
    trial relative to such a median, and the factor within which `KEPT` of the recent predictions held. The last is
    learnt separately for new trials, which have no history, and for promoted ones, so that good estimates get a small
    margin. Medians ignore a single slow job, such as the first of every worker.
    """

    def __init__(self) -> None:
        self._all = _Recent()
        self._by_length: dict[int, _Recent] = {}
        self._rates: dict[int, float] = {}  # cache of `_rate` by length, cleared by every job
        self._slowness: dict[int, float] = {}  # by trial
        self._stretch = {new: _Recent() for new in (True, False)}

    def add(self, step: TrialStep, cost: float, seconds: float) -> None:
        """Record that `step`, of `cost`, took `seconds`; ignored unless both are positive."""
        if seconds <= 0 or cost <= 0:
            return
        if self._all:
            self._stretch[step.start == 0].add(seconds / (cost * self._usual(step)))
        rate = seconds / cost
        self._all.add(rate)
        length = self._by_length.setdefault(step.stop - step.start, _Recent())
        length.add(rate)
        self._slowness[step.trial] = rate / length.median
        self._rates.clear()

    def seconds(self, step: TrialStep, cost: float) -> float:
        """Predict the seconds of `step`, of `cost`; 0 before the first job."""
        if not self._all:
            return 0.0
        return cost * self._usual(step) * self._stretch[step.start == 0].high

    def _usual(self, step: TrialStep) -> float:
        """Return the usual seconds per unit of cost, without the margin."""
        epochs = step.stop - step.start
        if epochs not in self._rates:
            self._rates[epochs] = self._rate(epochs)
        return self._rates[epochs] * self._slowness.get(step.trial, 1.0)

    def _rate(self, epochs: int) -> float:
        """Return the median seconds per unit of cost of jobs of similar length."""
        known = [length for length, recent in self._by_length.items() if len(recent) >= FEW]
        nearest = min(known, key=lambda length: abs(log(length / epochs)), default=None)
        return self._all.median if nearest is None else self._by_length[nearest].median


class _Recent:
    """The last `RECENT` numbers; statistics are computed on `add`, as they are read more often."""

    def __init__(self) -> None:
        self.median = 1.0
        self.high = 1.0
        """quantile `KEPT` of the numbers"""
        self._values: deque[float] = deque(maxlen=RECENT)

    def add(self, value: float) -> None:
        """Add a number."""
        self._values.append(value)
        ranked = sorted(self._values)
        self.median = median(ranked)
        self.high = ranked[ceil(KEPT * len(ranked)) - 1]

    def __len__(self) -> int:
        return len(self._values)
