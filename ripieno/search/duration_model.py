"""Prediction of job durations from the jobs that ended. Pure: it reads no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil, log
from statistics import median

import numpy as np

from ripieno.search.encoding import Array
from ripieno.search.forest import Forest
from ripieno.search.scheduler import TrialStep

RECENT = 20
"""Number of recent jobs that count: the load of a machine changes, and workers start up only once."""
FEW = 3
"""Minimum number of jobs of a length; with fewer, jobs of all lengths are used."""
STARTUP = 12
"""Number of trials before a forest is fitted to their configurations, and of its predictions before it is used."""
GROWTH = 1.25
"""Ratio of the numbers of trials of two successive forests."""
KNOWN = 1000
"""Number of recent trials that a forest is fitted on."""
TREES, LEAF = 10, 3
"""Trees of a forest, and least number of trials of a leaf: durations are noisy."""
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

    Where `features` gives the features of a trial's configuration, a forest of trees predicts the seconds per unit of
    cost of new trials from them and from the job's length. It replaces the median as long as it comes closer to recent
    jobs. `learn` fits it.
    """

    def __init__(self, features: Callable[[int], Array] | None = None) -> None:
        self._features = features
        self._first: dict[int, tuple[int, float]] = {}  # epochs and rate of the first job of each trial
        self._fitted = 0  # number of trials known to the forest
        self._forest: Forest | None = None
        self._predicted: dict[TrialStep, float] = {}  # rates of new trials; a prediction is kept while the job runs
        self._errors = {"forest": _Recent(), "median": _Recent()}  # factors by which rates of new trials were missed
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
        if self._forest is not None and step.start == 0:
            for name, guess in (("forest", self._forecast(step)), ("median", self._typical(step.stop))):
                self._errors[name].add(abs(log(rate / guess)))
        self._all.add(rate)
        length = self._by_length.setdefault(step.stop - step.start, _Recent())
        length.add(rate)
        self._slowness[step.trial] = rate / length.median
        self._rates.clear()
        if step.start == 0:
            self._first[step.trial] = step.stop, rate
            self._predicted.pop(step, None)

    def learn(self) -> None:
        """Fit the forest if there are `GROWTH` times as many trials as at the last time, at least `STARTUP`."""
        if self._features is None or len(self._first) < max(STARTUP, GROWTH * self._fitted):
            return
        self._fitted = len(self._first)
        known = list(self._first.items())[-KNOWN:]
        rows = np.stack([self._row(trial, epochs) for trial, (epochs, _) in known])
        rates = np.log([rate for _, (_, rate) in known])
        self._forest = Forest(rows, rates, TREES, seed=self._fitted, leaf=LEAF)

    def seconds(self, step: TrialStep, cost: float) -> float:
        """Predict the seconds of `step`, of `cost`; 0 before the first job."""
        if not self._all:
            return 0.0
        return cost * self._usual(step) * self._stretch[step.start == 0].high

    def _usual(self, step: TrialStep) -> float:
        """Return the usual seconds per unit of cost, without the margin."""
        forest, plain = self._errors["forest"], self._errors["median"]
        if step.start == 0 and len(forest) >= STARTUP and forest.median < plain.median:
            return self._forecast(step)
        return self._typical(step.stop - step.start) * self._slowness.get(step.trial, 1.0)

    def _typical(self, epochs: int) -> float:
        """Return the median seconds per unit of cost of recent jobs of similar length."""
        if epochs not in self._rates:
            self._rates[epochs] = self._rate(epochs)
        return self._rates[epochs]

    def _forecast(self, step: TrialStep) -> float:
        """Return the seconds per unit of cost that the forest predicts for a new trial."""
        assert self._forest is not None
        if step not in self._predicted:
            row = self._row(step.trial, step.stop)[None]
            self._predicted[step] = float(np.exp(self._forest.predict(row).mean()))
        return self._predicted[step]

    def _row(self, trial: int, epochs: int) -> Array:
        """Return the features of a trial's first job."""
        assert self._features is not None
        return np.append(self._features(trial), log(epochs))

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
