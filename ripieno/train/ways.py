"""Which way a trial's images are prepared, chosen by measurement. Decides, starts nothing.

Theory of operation. Batches are the same whichever way they are prepared, so ways are compared while training goes on,
block by block, on the network itself: nothing is trained twice. Preparing them in the trainer comes first. If that
costs no more than the goal it stays; else each other way is measured in turn, and the quickest is taken, the simpler
one when it is as good. What was found is kept for networks of the same size: see `Feed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WayName = Literal["inline", "thread", "loaders"]

GOAL = 0.03
"""Share of the time that a trainer may wait for data."""
GAIN = 1.02
"""How many times faster than a simpler way another must be."""
SECONDS = 0.3
"""How long a way is measured at least, after its first block."""


@dataclass(frozen=True)
class Way:
    """Who prepares: the trainer between steps, a thread beside it, or `loaders` processes."""

    name: WayName = "inline"
    loaders: int = 0

    def __str__(self) -> str:
        return f"{self.loaders} loaders" if self.loaders else self.name


INLINE = Way()


@dataclass(frozen=True)
class Speed:
    """How a way did: images per second, and the share of the time waited for them."""

    way: Way
    rate: float
    waited: float


@dataclass(frozen=True)
class Found:
    """What was measured, and the way chosen."""

    way: Way
    speeds: tuple[Speed, ...] = ()


def ways(spare: int) -> tuple[Way, ...]:
    """The ways worth trying with `spare` cores beside the trainer, the simplest first.

    Without one there is nothing to win: who prepares beside the trainer takes its time, or another trial's.
    """
    if spare < 1:
        return (INLINE,)
    return (INLINE, Way("thread"), *(Way("loaders", n) for n in sorted({1, spare})))


def best(speeds: Sequence[Speed]) -> Way:
    """The quickest of `speeds`, the simplest first; the simplest of those as good."""
    chosen = speeds[0]
    for speed in speeds[1:]:
        if speed.rate > chosen.rate * GAIN:
            chosen = speed
    return chosen.way


class Trials:
    """Measures ways in turn, the first of them first; `known` is what an earlier measurement chose."""

    def __init__(self, candidates: Sequence[Way], known: Way | None = None) -> None:
        self.speeds: list[Speed] = []
        self._left = list(candidates)
        self.way = known if known in self._left else self._left.pop(0)
        self.settled = known == self.way or not self._left
        self._blocks, self._images, self._seconds, self._waited = 0, 0, 0.0, 0.0

    def add(self, images: int, seconds: float, waited: float) -> None:
        """A block of `images` took `seconds`, `waited` of them for its data. May change `way`."""
        self._blocks += 1
        if self.settled or self._blocks == 1:  # the first one pays for starting
            return
        self._images += images
        self._seconds += seconds
        self._waited += waited
        if self._seconds < SECONDS:
            return
        self.speeds.append(Speed(self.way, self._images / self._seconds, self._waited / self._seconds))
        if not self._left or (len(self.speeds) == 1 and self.speeds[0].waited <= GOAL):
            self.settled, self.way = True, best(self.speeds)
        else:
            self.way = self._left.pop(0)
        self._blocks, self._images, self._seconds, self._waited = 0, 0, 0.0, 0.0

    def drop(self) -> None:
        """The present way broke: the first one, which cannot, stays."""
        self.settled, self.way = True, INLINE
