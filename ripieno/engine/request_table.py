"""The desk: which requests are under way, how each ends, and the one lock that guards them and the ring's bookkeeping.

The lock is never held while images are copied in, members predict, predictions are combined or futures are resolved.
Methods without "locks" in their docstring are called with it held.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ripieno.engine.counters import EngineCounters
from ripieno.engine.request import Request
from ripieno.engine.request_queue import RequestQueue
from ripieno.engine.ring import Ring
from ripieno.engine.ring_types import RequestSlice
from ripieno.errors import EngineError


class RequestTable:
    """Requests under way over `ring`; `names` are the members' ids."""

    def __init__(self, ring: Ring, names: Sequence[str], min_members: int | None, deaths: int) -> None:
        self.ring, self.names = ring, names
        self._min_members, self._deaths = min_members, deaths
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)
        self.idle = threading.Condition(self.lock)
        self.queue: RequestQueue[Request] = RequestQueue(share=ring.capacity // 4)
        """requests that are not, or not wholly, in the ring for want of room"""
        self.requests: set[Request] = set()
        self.broken: dict[int, str] = {}
        """members that cannot be loaded for now, and why"""
        self.closed = ""
        """why no more requests are taken"""
        self.drains = False
        """requests that are in part in the ring may still be written whole"""
        self.tally = EngineCounters(len(names), len(ring.lanes))

    @property
    def pending(self) -> int:
        """Samples in the ring."""
        return self.ring.head - self.ring.tail

    @property
    def over(self) -> bool:
        """Closed, and nothing left to do."""
        return bool(self.closed) and not self.requests

    def check_open(self, request: Request) -> None:
        """Raises EngineError when a request comes too late."""
        if self.closed and not (self.drains and request.spans):
            request.closed = True
            raise EngineError(self.closed)

    def check(self, request: Request) -> None:
        """Raises EngineError when a request cannot be answered any more; makes do without broken members, if it may."""
        if request.closed:
            return
        self.check_open(request)
        for member in [m for m in request.plan.members if m in self.broken] if self.broken else ():
            self.lose(request, member)
            if request.closed:
                raise EngineError(self.lost(member, self.broken[member]))

    def wrote(self, request: Request, samples: int) -> None:
        """Count samples of a queued request that were written; the last ones end its waiting."""
        self.queue.served(request, samples)
        if request.written == request.samples:
            self._leave_queue(request)

    def refuse_waiting(self, message: str, begun: bool) -> list[Request]:
        """Drop what waits for room, if `begun` also what is in part in the ring. The caller rejects what comes back."""
        rest = [request for request in self.queue if begun or not request.spans]
        for request in rest:
            request.refusal = EngineError(message)
            self.drop(request)
        return rest

    def finish(self, request: Request) -> None:
        """A request has all the parts of its answer."""
        self.tally.answered(request)
        self._forget(request)

    def drop(self, request: Request) -> None:
        """Predict no more of a request; its slots come free when lanes have finished what they began."""
        self._forget(request)
        for span in request.spans:
            if not span.freed and self.ring.cancel(span, range(len(self.names))):
                self.ring.free(span)
        self.say_room()

    def lose(self, request: Request, member: int) -> list[RequestSlice]:
        """A request must do without a member, if it may, else it is dropped. Returns the spans this finishes."""
        if request.closed or member not in request.plan.members:
            return []
        others = tuple(m for m in request.plan.members if m != member)
        if self._min_members is None or len(others) < max(1, self._min_members):
            self.drop(request)
            return []
        request.plan = request.plan._replace(members=others)
        request.partial = True
        return [span for span in request.spans if not span.freed and self.ring.cancel(span, [member])]

    def lost(self, member: int, cause: str) -> str:
        """Why a request failed for want of a member."""
        return f"member {self.names[member]} died {self._deaths} times and cannot answer: {cause}"

    def unsound(self, member: int, sample: int) -> str:
        """Why a request failed for what a member answered to its `sample`."""
        return (
            f"member {self.names[member]} gave predictions that are not finite (NaN or infinite) for sample {sample}: "
            "check the input, or replace the member"
        )

    def fail_all(self, message: str) -> None:
        """Fail every request; locks."""
        with self.lock:
            rest = self.refuse_waiting(message, begun=True)
            others = list(self.requests)
            for request in others:
                self.drop(request)
        for request in [*rest, *others]:
            request.reject(EngineError(message))

    def say_room(self) -> None:
        """Slots may have come free."""
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
        """Let go of the images of a request that waited, and tell its caller."""
        if request.images is None:
            return
        self.queue.discard(request)
        request.images = None
        if request.admitted is not None:
            request.admitted.set()
