"""The engine's middle: requests in, tasks to lanes, predictions combined, answers out.

One lock guards the ring's bookkeeping and the requests. It is never held while images are copied in, members predict,
predictions are combined or futures are resolved. Whoever changes the bookkeeping hands out the tasks that became
possible (`_pump`): there is no dispatching thread between a request and the lanes, and nobody polls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.combine import combine, spread
from ripieno.engine.lane import Lane, Report
from ripieno.engine.memory import Memory
from ripieno.engine.request import Part, Plan, Request
from ripieno.engine.ring import Claim, Ring, Span
from ripieno.engine.supervisor import Supervisor
from ripieno.engine.tokens import Task
from ripieno.errors import EngineBusyError, EngineError, EngineTimeoutError
from ripieno.types import Ensemble


@dataclass(frozen=True)
class Patience:
    """When lanes are given up and tried again; seconds."""

    ping: float = 10.0
    """longest unanswered ping of a lane process"""
    stall: float = 60.0
    """longest a task may take, or 20 times its expected duration where that is more"""
    loading: float = 300.0
    """longest a lane may take to load its members"""
    check: float = 1.0
    """time between two looks"""
    deaths: int = 3
    """lane deaths over the same samples, or in a row, before those requests fail"""
    back_off: float = 0.1
    """wait before the second restart in a row (the first is at once); doubles with each"""
    longest_back_off: float = 5.0


@dataclass
class LaneState:
    """What is known of a lane."""

    members: tuple[int, ...]
    up: bool = False
    waiting: bool = False
    """for its restart"""
    strikes: int = 0
    """deaths since its last finished task"""
    restarts: int = 0
    news: float = field(default_factory=time.monotonic)
    """when it last started, or finished a task"""
    work: list[float] = field(default_factory=lambda: [0, 0, 0.0, 0.0])
    """batches, samples, waiting and computing seconds"""


class Dispatcher:
    """Ties ring, memory and lanes together; see the head of this file. Implements `lane.House`."""

    def __init__(
        self,
        ensemble: Ensemble,
        ring: Ring,
        memory: Memory,
        supervisor: Supervisor,
        patience: Patience,
        min_members: int | None,
    ) -> None:
        self._ensemble, self._ring, self._memory = ensemble, ring, memory
        self._supervisor, self._patience, self._min_members = supervisor, patience, min_members
        self._largest = max(post.batch_size for lane in ring.lanes for post in lane.posts)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._door = threading.Lock()
        self._writers_wait = False
        self._requests: set[Request] = set()
        self._broken: dict[int, str] = {}
        self._closed = ""
        self._lanes: Sequence[Lane] = ()
        self.states = [LaneState(tuple(post.member for post in lane.posts)) for lane in ring.lanes]
        self.member_work: list[list[float]] = [[0, 0, 0.0, 0.0] for _ in ensemble.members]
        self.counts = {"requests": 0, "samples": 0, "partial": 0, "failed": 0}
        self.combining = 0.0
        self.started = threading.Event()
        self.refusal = ""
        """why the engine could not start"""
        weights = ensemble.weights if ensemble.combiner != "mean" else [1.0] * len(ensemble.members)
        self._weights = np.asarray(weights, np.float64)

    def start(self, lanes: Sequence[Lane]) -> None:
        """Start the lanes; `started` is set when all are up or one is refused."""
        self._lanes = lanes
        for lane in lanes:
            self._supervisor.soon(lane.start)
        self._supervisor.at(time.monotonic() + self._patience.check, self._look)

    # requests

    def admit(self, request: Request, images: NDArray[np.generic], timeout: float | None) -> None:
        """Write a request's images into the ring, in pieces if they are many; waits for room at most `timeout`.

        Raises EngineBusyError when there was none (the request is cancelled then), EngineError when the engine is
        closed or a member is broken.
        """
        until = None if timeout is None else time.monotonic() + timeout
        if not self._door.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise self._busy(request.samples)
        try:
            if self._closed:
                raise EngineError(self._closed)
            if timeout is not None and timeout <= 0 and request.samples > self._ring.capacity - self.pending:
                raise self._busy(request.samples)
            written = 0
            while written < request.samples and not request.closed:
                count = self._wait_for_room(request, request.samples - written, until)
                slot = self._ring.head % self._ring.capacity
                self._memory.samples[slot : slot + count] = images[written : written + count]
                now = time.monotonic()
                with self._lock:
                    self._refuse_if_closed(request)
                    if request.closed:
                        break
                    span = self._ring.publish(request, written, count, request.plan.members, now)
                    request.spans.append(span)
                    self._requests.add(request)
                    self._pump(now)
                written += count
        finally:
            self._door.release()

    def drop(self, request: Request) -> None:
        """The caller wants no answer any more."""
        with self._lock:
            self._close_request(request)

    def expire(self, request: Request, partial: bool) -> None:
        """A request's deadline passed: answer with the members that finished, if `partial`, else fail it."""
        with self._lock:
            if request.closed:
                return
            answered = partial and self._answer_early(request)
            self._close_request(request)
            self.counts["failed"] += not answered
        if answered:
            self._deliver(request)
            return
        late = f"the deadline passed with {request.left} of {request.samples} samples unanswered"
        request.reject(EngineTimeoutError(f"{late}: allow more time, or partial answers"))

    def close(self, drain: bool, timeout: float | None) -> None:
        """Take no more requests, wait for those in flight if `drain`, fail the rest."""
        with self._lock:
            self._closed = self._closed or "the engine is closed"
            self._room.notify_all()
            if drain:
                self._idle.wait_for(lambda: not self._requests, timeout)
            rest = list(self._requests)
            for request in rest:
                self._close_request(request)
        for request in rest:
            request.reject(EngineError("the engine was closed before it could answer"))
        with self._door:
            pass  # nobody writes into the ring any more

    def panic(self, error: Exception) -> None:
        """A bug of ours struck in the background: fail everything rather than hang."""
        self._closed = f"the engine broke: {type(error).__name__}: {error}: please report this"
        self.refusal = self._closed
        self.started.set()
        with self._lock:
            rest = list(self._requests)
            self._requests.clear()
            self._room.notify_all()
            self._idle.notify_all()
        for request in rest:
            request.closed = True
            request.reject(EngineError(self._closed))

    @property
    def pending(self) -> int:
        """Samples in the ring."""
        return self._ring.head - self._ring.tail

    # what lanes tell (lane.House)

    def ready(self, lane: int, member: int, seconds: float) -> None:
        """A member was rehearsed."""
        with self._lock:
            self._ring.measured(lane, member, seconds)

    def up(self, lane: int) -> None:
        """A lane can work."""
        with self._lock:
            state = self.states[lane]
            state.up, state.news = True, time.monotonic()
            for member in state.members:
                self._broken.pop(member, None)
            self._ring.raise_lane(lane)
            self._pump(state.news)
            if all(state.up for state in self.states):
                self.started.set()

    def done(self, lane: int, reports: Sequence[Report]) -> None:
        """Claims are done; reports on claims that were taken back are late and ignored."""
        now = time.monotonic()
        finished: list[Span] = []
        with self._lock:
            state = self.states[lane]
            for claim_id, seconds, probabilities in reports:
                claim = self._ring.claims.get(claim_id)
                if claim is None:
                    continue
                if probabilities is not None:
                    self._memory.scatter(claim.member, self._slots(claim), probabilities)
                for work in (state.work, self.member_work[claim.member]):
                    work[0] += 1
                    work[1] += claim.samples
                    work[2] += claim.waited
                    work[3] += seconds
                state.strikes, state.news = 0, now
                finished += self._ring.complete(claim_id, seconds)
            self._pump(now)
        if finished:
            self._settle(finished)

    def dead(self, lane: int, cause: str, loading: bool) -> None:
        """A lane is gone: give its claims out again and restart it."""
        now = time.monotonic()
        state = self.states[lane]
        with self._lock:
            if self._closed and not self._requests:
                return
            state.up, state.waiting = False, True
            state.strikes += 1
            state.restarts += 1
            hopeless, finished = self._ring.release(lane)
            lost = {(id(span.request), member): (span.request, member) for span, member in hopeless}
            doomed = list(lost.values())
            for member in self._newly_broken(state, cause):
                doomed += [(request, member) for request in self._requests if member in request.plan.members]
            failed = []
            for request, member in doomed:
                if not request.closed:
                    finished += self._lose(request, member)
                    if request.closed:
                        failed.append((request, member))
            self.counts["failed"] += len(failed)
            self._pump(now)
        for request, member in failed:
            request.reject(EngineError(self._lost(member, cause)))
        self._settle(finished)
        if not self.started.is_set() and (loading or state.strikes >= self._patience.deaths):
            self.refusal = cause
            self.started.set()
            return
        wait = 0.0
        if state.strikes > 1:
            wait = min(self._patience.back_off * 2 ** (state.strikes - 2), self._patience.longest_back_off)
        self._supervisor.at(now + wait, lambda: self._restart(lane))

    # inner: room

    def _busy(self, samples: int) -> EngineBusyError:
        return EngineBusyError(
            f"no room for {samples} samples: {self.pending} of {self._ring.capacity} places are taken; try later"
        )

    def _refuse_if_closed(self, request: Request) -> None:
        """Raises EngineError when a request cannot be answered any more; makes do without broken members."""
        if self._closed:
            self._close_request(request)
            raise EngineError(self._closed)
        for member in [m for m in request.plan.members if m in self._broken]:
            self._lose(request, member)
            if request.closed:
                raise EngineError(self._lost(member, self._broken[member]))

    def _wait_for_room(self, request: Request, samples: int, until: float | None) -> int:
        """How many samples can be written now, at least 1; few enough that slots come free while others are read."""
        most = min(samples, max(self._largest, self._ring.capacity // 4 // self._largest * self._largest))
        if count := self._ring.piece(most):  # only this writer moves the head, and the tail only makes room
            return count
        with self._room:
            self._writers_wait = True
            while not (count := self._ring.piece(most)) and not self._closed and not request.closed:
                wait = None if until is None else until - time.monotonic()
                if wait is not None and wait <= 0:
                    self._close_request(request)
                    raise self._busy(request.samples)
                self._room.wait(wait)
            self._writers_wait = False
            self._refuse_if_closed(request)
        return count

    # inner: tasks

    def _slots(self, claim: Claim) -> tuple[tuple[int, int], ...]:
        capacity = self._ring.capacity
        return tuple((start % capacity, stop - start) for start, stop in claim.ranges)

    def _pump(self, now: float) -> None:
        """Hand out every task a lane can take now."""
        for lane, claims in self._ring.assign(now).items():
            self._lanes[lane].send([Task(claim.id, claim.member, self._slots(claim)) for claim in claims])
        if self._ring.max_delay and (due := self._ring.due()) is not None and due > now:
            self._supervisor.at(due, self._pump_later)

    def _pump_later(self) -> None:
        with self._lock:
            self._pump(time.monotonic())

    # inner: answers

    def _settle(self, spans: list[Span]) -> None:
        """Combine finished spans, free their slots, answer the requests that are complete."""
        if not spans:
            return
        begin = time.perf_counter()
        for plan, run in _runs((span for span in spans if not span.request.closed), self._ring.capacity):
            self._combine(run, plan)
        answered = []
        with self._lock:
            for span in spans:
                self._ring.free(span)
                request = span.request
                request.left -= span.stop - span.start
                if not request.left and not request.closed:
                    answered.append(request)
                    self._finish(request)
            if self._writers_wait:
                self._room.notify_all()
            self.combining += time.perf_counter() - begin
        for request in answered:
            self._deliver(request)

    def _combine(self, run: Sequence[Span], plan: Plan) -> None:
        """Combine the predictions of spans in consecutive slots, and give each its part."""
        slot = run[0].start % self._ring.capacity
        stop = slot + run[-1].stop - run[0].start
        if len(plan.members) == len(self._memory.predictions):
            predictions = self._memory.predictions[:, slot:stop]
        else:
            predictions = self._memory.predictions[list(plan.members), slot:stop]
        weights = self._weights[list(plan.members)]
        weights = (weights / weights.sum()).astype(np.float32)
        answer = combine(self._ensemble.combiner, predictions, weights)
        doubt = spread(predictions, answer, weights) if plan.spread else None
        each = predictions.copy() if plan.each else None
        first = run[0].start
        for span in run:
            low, high = span.start - first, span.stop - first
            span.request.parts.append(
                Part(
                    span.offset,
                    answer[low:high],
                    None if doubt is None else doubt[low:high],
                    None if each is None else each[:, low:high],
                )
            )

    def _finish(self, request: Request) -> None:
        request.closed = True
        self.counts["requests"] += 1
        self.counts["samples"] += request.samples
        self.counts["partial"] += request.partial
        self._forget(request)

    def _deliver(self, request: Request) -> None:
        names = tuple(self._ensemble.members[m] for m in request.plan.members)
        request.resolve(request.answer(names))

    def _answer_early(self, request: Request) -> bool:
        """Combine what the members that finished predicted. False when some sample has no prediction at all."""
        if sum(span.stop - span.start for span in request.spans) < request.samples:
            return False
        known = {part.offset for part in request.parts}
        members = request.plan.members
        for span in request.spans:
            if span.offset in known:
                continue
            done = tuple(m for m in request.plan.members if not span.left[m])
            if not done:
                return False
            members = tuple(m for m in members if m in done)
            self._combine([span], request.plan._replace(members=done))
        request.partial = request.partial or members != request.plan.members
        request.plan = request.plan._replace(members=members)
        self._finish(request)
        return True

    def _forget(self, request: Request) -> None:
        self._requests.discard(request)
        if self._closed and not self._requests:
            self._idle.notify_all()

    # inner: what goes wrong

    def _close_request(self, request: Request) -> None:
        """Predict no more of a request; its slots come free when lanes have finished what they began."""
        request.closed = True
        self._forget(request)
        for span in request.spans:
            if not span.freed and self._ring.withdraw(span, request.plan.members):
                self._ring.free(span)
        if self._writers_wait:
            self._room.notify_all()

    def _lose(self, request: Request, member: int) -> list[Span]:
        """A request must do without a member, if it may, else it is closed. Returns the spans this finishes."""
        if request.closed or member not in request.plan.members:
            return []
        others = tuple(m for m in request.plan.members if m != member)
        if self._min_members is None or len(others) < max(1, self._min_members):
            self._close_request(request)
            return []
        request.plan = request.plan._replace(members=others)
        request.partial = True
        return [span for span in request.spans if not span.freed and self._ring.withdraw(span, [member])]

    def _newly_broken(self, state: LaneState, cause: str) -> list[int]:
        """Members that have no lane left with any hope."""
        broken = []
        for member in state.members:
            homes = [s for s in self.states if member in s.members]
            if all(not s.up and s.strikes >= self._patience.deaths for s in homes):
                self._broken[member] = cause
                broken.append(member)
        return broken

    def _lost(self, member: int, cause: str) -> str:
        name = self._ensemble.members[member]
        return f"member {name} died {self._patience.deaths} times and cannot answer: {cause}"

    def _restart(self, lane: int) -> None:
        if self._closed and not self._requests:
            return
        state = self.states[lane]
        state.waiting, state.news = False, time.monotonic()
        self._lanes[lane].start()

    def _look(self) -> None:
        """Kill lanes that hang; runs every `patience.check` seconds."""
        now = time.monotonic()
        patience = self._patience
        for index, state in enumerate(self.states):
            lane = self._lanes[index]
            with self._lock:
                held = next(iter(self._ring.lanes[index].held.values()), None)
            open_for = 0.0 if state.waiting else lane.ping(now)
            if state.waiting:
                continue
            if open_for > patience.ping:
                lane.kill(f"it did not answer a ping for {open_for:.1f} s")
            elif not state.up and now - state.news > patience.loading:
                lane.kill(f"it did not load within {patience.loading:g} s")
            elif held and now - max(held.since, state.news) > max(patience.stall, 20 * held.seconds):
                lane.kill(f"it made no progress for {now - max(held.since, state.news):.1f} s")
        self._supervisor.at(now + patience.check, self._look)


def _runs(spans: Iterable[Span], capacity: int) -> list[tuple[Plan, list[Span]]]:
    """Spans grouped so that each group has one plan and lies in consecutive slots."""
    groups: list[tuple[Plan, list[Span]]] = []
    stop = -1
    for span in spans:
        plan = span.request.plan
        if span.start == stop and span.start % capacity and groups[-1][0] == plan:
            groups[-1][1].append(span)
        else:
            groups.append((plan, [span]))
        stop = span.stop
    return groups
