"""Queue of the requests that wait for room, and its order. Pure.

The next request is the one with the fewest samples left (shortest remaining first), so that small requests overtake
large ones. Once later requests have received `share` samples, the oldest goes first: it always gets half of the room,
and no request waits forever.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class RequestQueue(Generic[T]):
    """Waiting requests, each with its number of samples left; `share` is in samples.

    Each method takes at most logarithmic time in the length, and keeps no reference to a removed request.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._passed = 0
        """samples given to later requests since the oldest was served"""
        self.waiting: dict[T, int] = {}
        """by request, oldest first: its key in `_left`; a plain dict, because every request reads it"""
        self._left: dict[int, tuple[T, int]] = {}
        self._shortest: list[tuple[int, int]] = []
        """heap of (samples left, number); an entry that differs from `_left` is stale"""
        self._count = itertools.count()

    def put(self, request: T, samples: int) -> None:
        """Queue `request`, which has `samples` left."""
        number = next(self._count)
        self.waiting[request] = number
        self._left[number] = request, samples
        heapq.heappush(self._shortest, (samples, number))

    def next(self) -> T:
        """Return the next request. Raises IndexError when there is none."""
        if not self.waiting:
            raise IndexError("no request waits")
        if self._passed >= self._share:
            return self._oldest()
        while True:
            samples, number = self._shortest[0]
            entry = self._left.get(number)
            if entry is not None and entry[1] == samples:
                return entry[0]
            heapq.heappop(self._shortest)

    def served(self, request: T, samples: int) -> None:
        """Count `samples` that were given to `request`; remove it when it has none left."""
        if request not in self.waiting:
            return
        self._passed = 0 if request is self._oldest() else self._passed + samples
        number = self.waiting[request]
        left = self._left[number][1] - samples
        if left <= 0:
            self.discard(request)
            return
        self._left[number] = request, left
        heapq.heappush(self._shortest, (left, number))
        if len(self._shortest) > 64 + 4 * len(
            self._left
        ):  # stale entries of large requests stay at the bottom of the heap
            self._shortest = [(left, number) for number, (_, left) in self._left.items()]
            heapq.heapify(self._shortest)

    def discard(self, request: T) -> None:
        """Remove `request`, if it is in the queue."""
        number = self.waiting.pop(request, None)
        if number is None:
            return
        del self._left[number]
        if not self._left:
            self._shortest.clear()
            self._passed = 0

    def _oldest(self) -> T:
        return next(iter(self.waiting))

    def __len__(self) -> int:
        return len(self.waiting)

    def __iter__(self) -> Iterator[T]:
        return iter(self.waiting)

    def __contains__(self, request: object) -> bool:
        return request in self.waiting
