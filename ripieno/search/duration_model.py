"""How long jobs will take, learnt from those that ended. Decides only: it reads no clock."""

from __future__ import annotations

from collections import deque
from math import ceil, log
from statistics import median

from ripieno.search.scheduler import Decision

RECENT = 20
"""How many of the last jobs count: neighbours come and go, workers start up once."""
FEW = 3
"""Below this many jobs of a length, those of all lengths are asked."""
KEPT = 2 / 3
"""Share of jobs that take no longer than predicted."""


class DurationPredictor:
    """Seconds that jobs take, for each unit of cost.

    Theory of operation. What a unit of cost takes depends on how long the job is (a checkpoint is read and a member
    written for one epoch as for nine), on the trial (costs are rough guesses), and on the moment. So a prediction is
    the median of the last jobs about as long, times how much slower than such a median this trial was before, times
    what `KEPT` of the last predictions had to be stretched by to hold. The last is learnt apart for new trials, of
    which nothing is known, and for those that train on: where guesses are good the margin is small. One job that took
    very long, as the first of every worker does, moves no median.
    """

    def __init__(self) -> None:
        self._all = _Recent()
        self._by_length: dict[int, _Recent] = {}
        self._rates: dict[int, float] = {}  # what `_rate` said of each length since the last job
        self._slowness: dict[int, float] = {}  # of each trial
        self._stretch = {new: _Recent() for new in (True, False)}

    def add(self, decision: Decision, cost: float, seconds: float) -> None:
        """`decision`, of `cost`, took `seconds`. Nothing is learnt from no time at all."""
        if seconds <= 0 or cost <= 0:
            return
        if self._all:
            self._stretch[decision.start == 0].add(seconds / (cost * self._usual(decision)))
        rate = seconds / cost
        self._all.add(rate)
        length = self._by_length.setdefault(decision.stop - decision.start, _Recent())
        length.add(rate)
        self._slowness[decision.trial] = rate / length.median
        self._rates.clear()

    def seconds(self, decision: Decision, cost: float) -> float:
        """Predicted seconds of `decision`, of `cost`; 0 while nothing is known."""
        if not self._all:
            return 0.0
        return cost * self._usual(decision) * self._stretch[decision.start == 0].high

    def _usual(self, decision: Decision) -> float:
        """Seconds of a unit of cost, when all goes as it usually does."""
        epochs = decision.stop - decision.start
        if epochs not in self._rates:
            self._rates[epochs] = self._rate(epochs)
        return self._rates[epochs] * self._slowness.get(decision.trial, 1.0)

    def _rate(self, epochs: int) -> float:
        """The same, of jobs about as long."""
        known = [length for length, recent in self._by_length.items() if len(recent) >= FEW]
        nearest = min(known, key=lambda length: abs(log(length / epochs)), default=None)
        return self._all.median if nearest is None else self._by_length[nearest].median


class _Recent:
    """The last `RECENT` numbers; worked out as they come, for they are asked for more often."""

    def __init__(self) -> None:
        self.median = 1.0
        self.high = 1.0
        """what `KEPT` of them do not exceed"""
        self._values: deque[float] = deque(maxlen=RECENT)

    def add(self, value: float) -> None:
        """One more."""
        self._values.append(value)
        ranked = sorted(self._values)
        self.median = median(ranked)
        self.high = ranked[ceil(KEPT * len(ranked)) - 1]

    def __len__(self) -> int:
        return len(self._values)
