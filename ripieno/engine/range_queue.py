"""Queue of the position ranges that one unit has yet to predict, front first. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

MOST_RANGES = 64
"""Most separate ranges in one assignment, so that its message stays small."""


class RangeQueue:
    """Ranges [start, stop, workers that died on them]; none crosses a multiple of `capacity`, where the buffer ends."""

    __slots__ = ("_capacity", "_ranges", "rate", "waiting")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ranges: deque[list[int]] = deque()
        self.waiting = 0
        """samples in all ranges"""
        self.rate = 0.0
        """last measured seconds per sample of the unit; 0 while unknown"""

    def __bool__(self) -> bool:
        return bool(self._ranges)

    @property
    def front(self) -> int:
        """Position of the first waiting sample."""
        return self._ranges[0][0]

    @property
    def suspected(self) -> bool:
        """True if a worker died on the range at the front."""
        return self._ranges[0][2] > 0

    def append(self, start: int, stop: int) -> None:
        """Queue positions; they extend the last range unless the buffer ends between them."""
        self.waiting += stop - start
        ranges = self._ranges
        if ranges and ranges[-1][1] == start and ranges[-1][2] == 0 and start % self._capacity:
            ranges[-1][1] = stop
        else:
            ranges.append([start, stop, 0])

    def take(self, limit: int) -> tuple[list[tuple[int, int]], int, int]:
        """Take at most `limit` samples from the front; return ranges, samples, tries. Suspected ranges stay alone."""
        ranges = self._ranges
        tries = ranges[0][2]
        taken: list[tuple[int, int]] = []
        samples = 0
        while ranges and samples < limit and len(taken) < MOST_RANGES:
            start, stop, suspected = ranges[0]
            if taken and (tries or suspected):
                break
            end = min(stop, start + limit - samples)
            taken.append((start, end))
            samples += end - start
            if end == stop:
                ranges.popleft()
            else:
                ranges[0][0] = end
        self.waiting -= samples
        return taken, samples, tries

    def put_back(self, pieces: Iterable[tuple[int, int]], tries: int) -> None:
        """Put taken ranges back to the front; unsuspected neighbours are joined again."""
        back: list[list[int]] = []
        for start, stop in pieces:
            self.waiting += stop - start
            if back and not tries and back[-1][1] == start and start % self._capacity:
                back[-1][1] = stop
            else:
                back.append([start, stop, tries])
        self._ranges.extendleft(reversed(back))

    def cut(self, start: int, stop: int) -> int:
        """Remove the waiting positions from `start` to `stop`; return their number."""
        kept: deque[list[int]] = deque()
        removed = 0
        for first, last, tries in self._ranges:
            low, high = max(first, start), min(last, stop)
            if low >= high:
                kept.append([first, last, tries])
                continue
            if first < low:
                kept.append([first, low, tries])
            if high < last:
                kept.append([high, last, tries])
            removed += high - low
        self._ranges = kept
        self.waiting -= removed
        return removed
