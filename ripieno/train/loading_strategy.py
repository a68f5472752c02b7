"""Choice between preparing a trial's batches in the trainer and in a thread, by measurement.

Theory of operation. Batches are the same either way, so strategies are compared during training, block by block, on the
network itself: nothing is trained twice. The trainer prepares first. If waiting for data costs no more than the goal,
it stays; otherwise the thread is measured too, and replaces it when it is faster. The result is kept for networks of
the same size: see `BatchPipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

GOAL = 0.03
"""Share of the time that a trainer may wait for data."""
GAIN = 1.02
"""Speedup that justifies the less simple strategy."""
SECONDS = 0.3
"""Least duration of a measurement, after the first block."""


@dataclass(frozen=True)
class LoadingStrategy:
    """Place of batch preparation: the trainer, between steps, or a thread of its own."""

    name: Literal["inline", "thread"] = "inline"

    def __str__(self) -> str:
        return self.name


INLINE, THREAD = LoadingStrategy("inline"), LoadingStrategy("thread")


@dataclass(frozen=True)
class StrategyTiming:
    """Images per second with a strategy, and the share of the time spent waiting for data."""

    way: LoadingStrategy
    rate: float
    waited: float


@dataclass(frozen=True)
class StrategyRecord:
    """Timings on disk, and the strategy chosen."""

    way: LoadingStrategy
    speeds: tuple[StrategyTiming, ...] = ()


def strategies(spare: int) -> tuple[LoadingStrategy, ...]:
    """Return the strategies worth measuring: without a `spare` core a thread would only take time from a trainer."""
    return (INLINE, THREAD) if spare >= 1 else (INLINE,)


def best(timings: Sequence[StrategyTiming]) -> LoadingStrategy:
    """Return the fastest strategy of `timings`, simplest first; within `GAIN` of each other, the simpler one."""
    chosen = timings[0]
    for timing in timings[1:]:
        if timing.rate > chosen.rate * GAIN:
            chosen = timing
    return chosen.way


class StrategySelector:
    """Measures `candidates` in turn; `known` is the result of an earlier measurement and ends the search at once."""

    def __init__(self, candidates: Sequence[LoadingStrategy], known: LoadingStrategy | None = None) -> None:
        self.timings: list[StrategyTiming] = []
        self._left = list(candidates)
        self.strategy = known if known in self._left else self._left.pop(0)
        self.settled = known == self.strategy or not self._left
        self._blocks, self._images, self._seconds, self._waited = 0, 0, 0.0, 0.0

    def add(self, images: int, seconds: float, waited: float) -> None:
        """Count a block of `images` that took `seconds`, `waited` of them for data; may change `strategy`."""
        self._blocks += 1
        if self.settled or self._blocks == 1:  # the first block pays for starting
            return
        self._images += images
        self._seconds += seconds
        self._waited += waited
        if self._seconds < SECONDS:
            return
        rate, waiting = self._images / self._seconds, self._waited / self._seconds
        self.timings.append(StrategyTiming(self.strategy, rate, waiting))
        if not self._left or (len(self.timings) == 1 and waiting <= GOAL):
            self.settled, self.strategy = True, best(self.timings)
        else:
            self.strategy = self._left.pop(0)
        self._blocks, self._images, self._seconds, self._waited = 0, 0, 0.0, 0.0
