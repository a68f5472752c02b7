"""The ring's bookkeeping: it assigns samples to workers, and detects finished requests. Pure.

Theory of operation. Samples get consecutive *positions*, counted from the engine's start and never reused; sample `p`
is in slot `p % capacity` of the shared buffer. A `RequestSlice` is a run of samples of one request in consecutive
slots. A *unit* is a member, or the members that share a backbone: they predict a batch
together. Every unit has a queue (`RangeQueue`) of the position ranges that it has yet to predict: `enqueue` appends to
it, `schedule` takes from its front, and `release` puts the assignments of a dead worker back at its front. Replicas of
a unit are workers that take from the same queue.

A slice counts the (sample, unit) pairs for which it waits; at zero it is returned as finished. Its slots may be
written again after the caller has combined its predictions and called `free`. This module uses no processes, arrays,
locks or clocks: the time is an argument, and the caller holds a lock.

The next task is the one with samples at the lowest position, among equals the longest. Units thus stay in step, and
answers leave in order. An assignment takes the waiting samples up to the batch size of the instance. When little work
is left it takes fewer, so that all workers end together (guided self-scheduling). It never takes fewer than the
`floor` of the instance.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ripieno.engine.range_queue import RangeQueue

WAKING, SENDING = 50e-6, 10e-6
"""Seconds to wake an idle worker, and to send one task; they prevent spreading little work over more workers."""
SMOOTHING = 0.2
"""Weight of the newest measurement in the running seconds per sample."""
SHORTEST = 0.001
"""Seconds below which a task is not cut further: sending it would take too large a part of its time."""
MAX_ASSIGNMENTS = 16
"""Most assignments of a worker, so that their messages always fit the socket."""
_NO_UNITS: frozenset[int] = frozenset()


@dataclass(slots=True)
class RequestSlice:
    """Samples of `request` from `offset` on, at positions `start` to `stop` (exclusive)."""

    request: Any
    offset: int
    start: int
    stop: int
    arrival: float
    left: list[int]
    """per unit, the number of samples that it has yet to predict"""
    remaining: int
    """sum of `left`"""
    unwanted: frozenset[int]
    """units that need not predict it any more"""
    freed: bool = False
    progress: Any = None
    """state of the cascade"""


@dataclass(slots=True)
class BatchAssignment:
    """Batch for `worker`: the samples of `ranges` (pairs start, stop of positions), predicted with `unit`."""

    id: int
    worker: int
    unit: int
    ranges: list[tuple[int, int]]
    samples: int
    tries: int
    """number of workers that died on these samples"""
    since: float
    """time of the assignment"""
    waited: float
    """seconds for which its oldest sample had waited by then"""
    seconds: float
    """expected duration"""


@dataclass(slots=True)
class InstanceConfig:
    """Placement of `unit` in a worker, in batches of `batch_size`, cut to `floor` samples at least."""

    unit: int
    batch_size: int
    floor: int = 8
    rate: float = 0.0
    """measured seconds per sample; 0 while unknown"""


@dataclass(slots=True)
class WorkerState:
    """State of a worker in the ring."""

    instances: dict[int, InstanceConfig]
    """by unit"""
    held: dict[int, BatchAssignment] = field(default_factory=dict)
    """its assignments, oldest (the running one) first"""
    units: dict[int, int] = field(default_factory=dict)
    """number of assignments of each unit that has any"""
    load: float = 0.0
    """expected seconds until all its assignments are done; when idle, the seconds it takes to wake it"""
    alone: bool = False
    """True if its assignment is suspected of killing workers, and runs alone"""
    up: bool = False

    def wants(self, ahead: float, second: bool) -> bool:
        """Return whether it may take an assignment if there is one; see `Ring` for `ahead` and `second`."""
        held = len(self.held)
        if not held or not self.up:
            return self.up
        if self.load < ahead:
            return held < MAX_ASSIGNMENTS and not self.alone
        return second and held < 2 and not self.alone


class Ring:
    """Bookkeeping of `capacity` slots, `units` units, and workers given by their instances.

    With `ahead`, a worker gets further assignments before it has finished the last, while it holds less than `ahead`
    seconds of work. With `second`, it gets one more while the waiting work still lets all workers end together. A
    sample waits at most `max_delay` seconds for its batch to fill. A range on which workers died `deaths` times is
    given up.
    """

    def __init__(
        self,
        capacity: int,
        units: int,
        workers: Sequence[Sequence[InstanceConfig]],
        *,
        ahead: float = 0.0,
        second: bool = True,
        max_delay: float = 0.0,
        deaths: int = 3,
    ) -> None:
        assert capacity > 0
        assert units > 0
        self.capacity, self.ahead, self.max_delay, self.deaths = capacity, ahead, max_delay, deaths
        self._second = second and ahead > 0
        self.head = self.tail = 0
        self.workers = [WorkerState({instance.unit: instance for instance in instances}) for instances in workers]
        self.units = [RangeQueue(capacity) for _ in range(units)]
        self.assignments: dict[int, BatchAssignment] = {}
        self._slices: deque[RequestSlice] = deque()
        self._owner: list[RequestSlice | None] = [None] * capacity
        self._next = 0
        self._work, self._share = -1.0, 0.5
        """seconds of all waiting work, and the share of it for one assignment; negative until needed"""
        self.idle = 0
        """number of workers that are up and hold no assignment"""

    # writers

    def piece(self, samples: int) -> int:
        """Return how many of `samples` can be written now, from `head` on, into consecutive slots."""
        return min(samples, self.capacity - (self.head - self.tail), self.capacity - self.head % self.capacity)

    def enqueue(self, request: Any, offset: int, samples: int, units: Collection[int], now: float) -> RequestSlice:
        """Queue the `samples` that were written from `head` on for `units`."""
        assert 0 < samples <= self.piece(samples)
        start, stop = self.head, self.head + samples
        left = [0] * len(self.units)
        request_slice = RequestSlice(request, offset, start, stop, now, left, samples * len(units), _NO_UNITS)
        for unit in units:
            left[unit] = samples
            self.units[unit].append(start, stop)
        slot = start % self.capacity
        if samples == 1:
            self._owner[slot] = request_slice
        else:
            self._owner[slot : slot + samples] = [request_slice] * samples
        self._slices.append(request_slice)
        self.head = stop
        return request_slice

    def extend(self, request_slice: RequestSlice, unit: int, start: int, stop: int) -> None:
        """Queue positions of a slice, finished or not but not yet freed, for one more unit."""
        assert request_slice.start <= start < stop <= request_slice.stop
        assert not request_slice.freed
        request_slice.left[unit] += stop - start
        request_slice.remaining += stop - start
        self.units[unit].append(start, stop)

    def free(self, request_slice: RequestSlice) -> None:
        """Free the slots of a finished slice, and its reference to the request."""
        assert request_slice.remaining == 0
        request_slice.freed = True
        request_slice.request = None
        slices = self._slices
        while slices and slices[0].freed:
            self.tail = slices.popleft().stop

    # workers

    def schedule(self, now: float) -> dict[int, list[BatchAssignment]]:
        """Return assignments for every worker that can take one now; the worker that would finish first goes first."""
        taken: dict[int, list[BatchAssignment]] = {}
        if not self.idle and not self.ahead:
            return taken  # the usual case under load
        free = [i for i, worker in enumerate(self.workers) if worker.wants(self.ahead, self._second)]
        self._work = -1.0
        while free:
            index = free[0] if len(free) == 1 else min(free, key=lambda i: self.workers[i].load)
            worker = self.workers[index]
            assignment = self._make_assignment(index, worker, now)
            if assignment:
                taken.setdefault(index, []).append(assignment)
            if not assignment or not worker.wants(self.ahead, self._second):
                free.remove(index)
        return taken

    def next_deadline(self, now: float = -math.inf) -> float | None:
        """Return the next time after `now` at which the oldest sample of a unit will have waited `max_delay`.

        Assignments may be possible then. None if no unit waits for a time: a unit past it waits for a free
        worker.
        """
        times = [self._arrival(m) + self.max_delay for m in self.units if m]
        return min((when for when in times if when > now), default=None)

    def complete(self, assignment_id: int, seconds: float) -> list[RequestSlice]:
        """Complete an assignment with written predictions; return the slices it finished. Ignore unknown ids."""
        assignment = self.assignments.pop(assignment_id, None)
        if assignment is None:
            return []
        worker = self.workers[assignment.worker]
        del worker.held[assignment_id]
        worker.units[assignment.unit] -= 1
        if not worker.units[assignment.unit]:
            del worker.units[assignment.unit]
        worker.load = worker.load - assignment.seconds - SENDING if worker.held else WAKING
        self.measured(assignment.worker, assignment.unit, seconds / assignment.samples)
        self.idle += worker.up and not worker.held
        return self._passed(assignment.unit, assignment.ranges)

    def measured(self, worker: int, unit: int, rate: float) -> None:
        """Update the running mean with `rate` seconds per sample of `unit` in `worker`."""
        instance = self.workers[worker].instances[unit]
        instance.rate = rate if instance.rate == 0 else instance.rate + SMOOTHING * (rate - instance.rate)
        self.units[unit].rate = instance.rate

    # failures

    def worker_up(self, worker: int) -> None:
        """Mark the worker as ready for assignments."""
        assert not self.workers[worker].held
        self.workers[worker].up = True
        self.workers[worker].load = WAKING
        self.idle += 1

    def release(self, worker: int) -> tuple[list[tuple[RequestSlice, int]], list[RequestSlice]]:
        """Put the assignments of a dead worker back to the front.

        Returns the (slice, unit) pairs on which workers died too often, and the slices that finished because they had
        been cancelled for the unit. Only the oldest assignment was running and is suspected; it is cut at request
        boundaries, so that a request that kills workers fails alone.
        """
        dead = self.workers[worker]
        self.idle -= dead.up and not dead.held
        dead.up = False
        abandoned: list[tuple[RequestSlice, int]] = []
        finished: list[RequestSlice] = []
        for age, assignment in reversed(list(enumerate(dead.held.values()))):
            del self.assignments[assignment.id]
            tries = assignment.tries + 1 if age == 0 else assignment.tries
            back = []
            for request_slice, start, stop in self.pieces(assignment.ranges):
                if assignment.unit in request_slice.unwanted:
                    if self._count(request_slice, assignment.unit, stop - start):
                        finished.append(request_slice)
                    continue
                back.append((start, stop))
                if tries >= self.deaths:
                    abandoned.append((request_slice, assignment.unit))
            self.units[assignment.unit].put_back(back, tries)
        dead.held.clear()
        dead.units.clear()
        return abandoned, finished

    def cancel(self, request_slice: RequestSlice, units: Iterable[int]) -> bool:
        """Cancel `request_slice` for `units`, except assigned samples; return whether this finishes it."""
        finished = False
        request_slice.unwanted = request_slice.unwanted.union(units)
        for index in units:
            if not request_slice.left[index]:
                continue
            if count := self.units[index].cut(request_slice.start, request_slice.stop):
                finished = self._count(request_slice, index, count)
        return finished

    # inner

    def pieces(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[RequestSlice, int, int]]:
        """Yield the ranges, cut at the boundaries of slices."""
        for start, stop in ranges:
            while start < stop:
                request_slice = self._owner[start % self.capacity]
                assert request_slice is not None
                end = min(stop, request_slice.stop)
                yield request_slice, start, end
                start = end

    def _passed(self, unit: int, ranges: Iterable[tuple[int, int]]) -> list[RequestSlice]:
        """Count `ranges` that `unit` has predicted; return the finished slices. This is the hottest loop."""
        owner, capacity = self._owner, self.capacity
        finished = []
        for start, stop in ranges:
            while start < stop:
                request_slice = owner[start % capacity]
                assert request_slice is not None
                end = request_slice.stop if request_slice.stop < stop else stop
                request_slice.left[unit] -= end - start
                request_slice.remaining -= end - start
                if not request_slice.remaining:
                    finished.append(request_slice)
                start = end
        return finished

    def _count(self, request_slice: RequestSlice, unit: int, samples: int) -> bool:
        """Count `samples` of a slice as finished by `unit`; return whether the slice is finished."""
        request_slice.left[unit] -= samples
        request_slice.remaining -= samples
        assert request_slice.left[unit] >= 0
        return request_slice.remaining == 0

    def _arrival(self, unit: RangeQueue) -> float:
        request_slice = self._owner[unit.front % self.capacity]
        assert request_slice is not None
        return request_slice.arrival

    def _make_assignment(self, index: int, worker: WorkerState, now: float) -> BatchAssignment | None:
        """Take the best task for a worker; return None when there is none, or waiting is better."""
        held, units = worker.units, self.units
        front, longest, chosen = self.head, -1.0, None
        for instance in worker.instances.values():
            unit = units[instance.unit]
            waiting = unit.waiting
            if not waiting:
                continue
            if waiting < instance.batch_size:
                if instance.unit in held:
                    continue  # a fuller batch later is better
                if self.max_delay and now < self._arrival(unit) + self.max_delay:
                    continue
                seconds = instance.rate * waiting
            else:
                seconds = instance.rate * instance.batch_size
            start = unit.front
            if start < front or (start == front and seconds > longest):
                front, longest, chosen = start, seconds, instance
        if chosen is None:
            return None
        unit = units[chosen.unit]
        if self._work < 0:
            self._work = sum([unit.waiting * unit.rate for unit in units])
            self._share = 0.5 / sum([worker.up for worker in self.workers])
        share = self._work * self._share
        size = chosen.batch_size if longest <= SHORTEST else self._size(chosen, share)
        if held and unit.suspected:
            return None  # it must be predicted alone
        if held and worker.load >= self.ahead and chosen.rate * min(size, unit.waiting) > share / 2:
            return None  # the remaining work must still let all workers end together
        waited = now - self._arrival(unit)
        ranges, samples, tries = unit.take(size)
        seconds = chosen.rate * samples
        assignment = BatchAssignment(self._next, index, chosen.unit, ranges, samples, tries, now, waited, seconds)
        self._next += 1
        self._work = max(0.0, self._work - unit.rate * samples)
        if not held:
            self.idle -= 1
            worker.load = 0.0
        worker.load += seconds + SENDING
        worker.alone = tries > 0
        self.assignments[assignment.id] = worker.held[assignment.id] = assignment
        held[assignment.unit] = held.get(assignment.unit, 0) + 1
        return assignment

    def _size(self, instance: InstanceConfig, share: float) -> int:
        """Return the most samples of the next assignment; `share` is half of an even share of all work, in seconds."""
        if instance.rate <= 0 or instance.floor >= instance.batch_size:
            return instance.batch_size
        return min(instance.batch_size, max(instance.floor, int(max(share, SHORTEST) / instance.rate)))
