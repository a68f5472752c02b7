"""The table of requests in flight, and the one lock that guards it and the ring's bookkeeping.

The lock is never held while images are copied, members predict, predictions are combined or futures are resolved.
Methods without "takes the lock" in their docstring are called with the lock held.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ripieno.engine.counters import EngineCounters
from ripieno.engine.request import Request
from ripieno.engine.request_queue import RequestQueue
from ripieno.engine.ring import RequestSlice, Ring
from ripieno.errors import EngineError


class RequestTable:
    """Requests in flight on `ring`; `names` are the ids of the members, `units` the members of each unit."""

    def __init__(
        self, ring: Ring, names: Sequence[str], units: Sequence[Sequence[int]], min_members: int | None, deaths: int
    ) -> None:
        self.ring, self.names = ring, names
        self._min_members, self._deaths = min_members, deaths
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)
        self.idle = threading.Condition(self.lock)
        self.queue: RequestQueue[Request] = RequestQueue(share=ring.capacity // 4)
        """requests that wait for room, not or only partly in the ring"""
        self.requests: set[Request] = set()
        self.broken: dict[int, str] = {}
        """units that cannot be loaded for now, with the cause"""
        self.closed = ""
        """reason why no more requests are accepted; empty while open"""
        self.drains = False
        """True while requests that are partly in the ring may still be completed"""
        self.tally = EngineCounters(units, len(ring.workers))

    @property
    def pending(self) -> int:
        """Number of samples in the ring."""
        return self.ring.head - self.ring.tail

    @property
    def over(self) -> bool:
        """True if the table is closed and no request is left."""
        return bool(self.closed) and not self.requests

    def check_open(self, request: Request) -> None:
        """Raise EngineError if the table accepts the request no more."""
        if self.closed and not (self.drains and request.slices):
            request.closed = True
            raise EngineError(self.closed)

    def check(self, request: Request) -> None:
        """Drop broken members from a request if allowed. Raise EngineError when it can no longer be answered."""
        if request.closed:
            return
        self.check_open(request)
        for unit in [u for u in request.plan.units if u in self.broken] if self.broken else ():
            members = request.plan.units[unit]
            self.lose(request, members)
            if request.closed:
                raise EngineError(self.lost(members[0], self.broken[unit]))

    def wrote(self, request: Request, samples: int) -> None:
        """Count written samples of a queued request; the last ones remove it from the queue."""
        self.queue.served(request, samples)
        if request.written == request.samples:
            self._leave_queue(request)

    def refuse_waiting(self, message: str, begun: bool) -> list[Request]:
        """Drop the requests that wait for room, with `begun` also those partly in the ring; the caller rejects them."""
        rest = [request for request in self.queue if begun or not request.slices]
        for request in rest:
            request.refusal = EngineError(message)
            self.drop(request)
        return rest

    def finish(self, request: Request) -> None:
        """Remove a request that has all parts of its answer."""
        self.tally.answered(request)
        self._forget(request)

    def drop(self, request: Request) -> None:
        """Stop predicting a request; its slots are freed when workers have finished the running tasks."""
        self._forget(request)
        for request_slice in request.slices:
            if not request_slice.freed and self.ring.cancel(request_slice, range(len(self.ring.units))):
                self.ring.free(request_slice)
        self.say_room()

    def lose(self, request: Request, members: Sequence[int]) -> list[RequestSlice]:
        """Remove members from a request, or drop the request if too few remain. Return the slices this finishes."""
        before, plan = request.plan, request.plan.without(members)
        if request.closed or len(plan.members) == len(before.members):
            return []
        if self._min_members is None or len(plan.members) < max(1, self._min_members):
            self.drop(request)
            return []
        request.plan = plan
        request.partial = True
        gone = [unit for unit in before.units if unit not in plan.units]
        return [
            request_slice
            for request_slice in request.slices
            if not request_slice.freed and self.ring.cancel(request_slice, gone)
        ]

    def lost(self, member: int, cause: str) -> str:
        """Return the error message of a request that failed because it lost a member."""
        return f"Member {self.names[member]} is unavailable: its worker died {self._deaths} times. Last error: {cause}"

    def unsound(self, member: int, sample: int) -> str:
        """Return the error message of a request that failed because of predictions for its `sample`."""
        return (
            f"Member {self.names[member]} returned predictions that are not finite (NaN or infinite) "
            f"for sample {sample}. Check the input, or replace the member."
        )

    def fail_all(self, message: str) -> None:
        """Fail every request; takes the lock."""
        with self.lock:
            rest = self.refuse_waiting(message, begun=True)
            running = list(self.requests)
            for request in running:
                self.drop(request)
        for request in [*rest, *running]:
            request.reject(EngineError(message))

    def say_room(self) -> None:
        """Notify waiting requests that slots may be free."""
        if self.queue.waiting:
            self.room.notify_all()

    def _forget(self, request: Request) -> None:
        request.closed = True
        if request.images is not None:
            self._leave_queue(request)
        for timer in request.timers:
            timer.cancel()
        self.requests.discard(request)
        if self.over:
            self.idle.notify_all()

    def _leave_queue(self, request: Request) -> None:
        """Release the images of a request that waited, and notify its caller."""
        if request.images is None:
            return
        self.queue.discard(request)
        request.images = None
        if request.admitted is not None:
            request.admitted.set()
