"""The engine's middle: requests in, tasks to lanes, predictions combined, answers out.

Whoever changes the ring's bookkeeping (a caller that writes, a lane that has finished, the supervisor) hands out the
tasks that became possible (`_pump`): there is no dispatching thread between a request and the lanes, and nobody polls.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.cascade import CascadeState, advance, check_step
from ripieno.engine.combiner import Combiner, Fault
from ripieno.engine.health import HealthMonitor
from ripieno.engine.memory import Memory
from ripieno.engine.messages import RunBatch
from ripieno.engine.request import Request
from ripieno.engine.request_table import RequestTable
from ripieno.engine.ring import Ring
from ripieno.engine.ring_types import BatchAssignment, RequestSlice
from ripieno.engine.supervisor import Supervisor
from ripieno.engine.trace import InferenceStep
from ripieno.engine.worker import Report, Worker
from ripieno.engine.writer import Writer
from ripieno.errors import EngineError, EngineTimeoutError
from ripieno.types import Ensemble

SHORT = 50e-6
"""Seconds below which a task is short: less than it takes to wake whoever waits for it."""


@dataclass
class _Loss:
    """What it comes to that requests lose members."""

    failed: list[tuple[Request, str]] = field(default_factory=list)
    """requests that cannot do without them, and why"""
    finished: list[RequestSlice] = field(default_factory=list)
    """spans that wait for nothing else"""


class Dispatcher:
    """Ties ring, memory and lanes together; see the head of this file. Implements `lane.House`."""

    def __init__(
        self,
        ensemble: Ensemble,
        ring: Ring,
        memory: Memory,
        supervisor: Supervisor,
        watch: HealthMonitor,
        min_members: int | None = None,
    ) -> None:
        self._ring, self._memory, self._supervisor, self._watch = ring, memory, supervisor, watch
        self._combiner = Combiner(ensemble, memory)
        self._lanes: Sequence[Worker] = ()
        self.desk = RequestTable(ring, ensemble.members, min_members, watch.patience.deaths)
        # a large request is written in pieces, so that slots come free at its head while its tail is written
        largest = max(post.batch_size for lane in ring.lanes for post in lane.instances.values())
        piece = max(largest, ring.capacity // 4 // largest * largest)
        self._writer = Writer(self.desk, memory, piece, self._publish, self.fail)
        self._names: dict[tuple[int, ...], tuple[str, ...]] = {}
        """ids of the members of each plan"""
        self.settled = threading.Event()
        """all lanes are up, or one cannot be started"""
        self.refusal = ""
        """why the engine could not start"""
        self._alarm = math.inf
        """when `_pump_later` runs next; a timer for a later time runs as well, and may find nothing to do"""
        self.traced = False
        """whether some request wants to know its steps"""

    def start(self, lanes: Sequence[Worker]) -> None:
        """Start the lanes; `settled` is set when all are up or one is refused."""
        self._lanes = lanes
        self._watch.begin(lanes, self._running, self.stopped)

    # requests

    def admit(self, request: Request, images: NDArray[np.generic], timeout: float | None, block: bool) -> None:
        """Write a request's images into the ring: see `Writer.write`."""
        self._writer.write(request, images, timeout, block)
        if not block and timeout is not None and request.images is not None:
            until = time.monotonic() + timeout
            request.timers += (self._supervisor.at(until, lambda: self._writer.refuse(request)),)

    def drop(self, request: Request) -> None:
        """The caller wants no answer any more."""
        with self.desk.lock:
            self.desk.drop(request)

    def expire(self, request: Request, partial: bool) -> None:
        """A request's deadline passed: answer with the members that finished, if `partial`, else fail it."""
        with self.desk.lock:
            if request.closed:
                return
            members = self._answer_early(request) if partial else None
            self.desk.drop(request)
            self.desk.tally.failed += members is None
        if members is not None:
            self._deliver(request, members)
            return
        late = f"the deadline passed with {request.left} of {request.samples} samples unanswered"
        request.reject(EngineTimeoutError(f"{late}: allow more time, or partial answers"))

    def close(self, drain: bool, timeout: float | None) -> None:
        """Take no more requests, wait for those in flight if `drain`, fail the rest."""
        desk = self.desk
        with desk.lock:
            desk.closed = desk.closed or "the engine is closed"
            desk.drains = drain
            refused = desk.refuse_waiting(desk.closed, begun=not drain)
        for request in refused:
            request.reject(EngineError(desk.closed))
        with desk.lock:
            if drain:
                desk.idle.wait_for(lambda: not desk.requests, timeout)
            desk.drains = False
        desk.fail_all("the engine was closed before it could answer")
        self._writer.close()

    def fail(self, error: Exception) -> None:
        """A bug of ours struck in the background: fail everything rather than hang."""
        self.desk.closed = self.refusal = f"the engine broke: {type(error).__name__}: {error}: please report this"
        self.settled.set()
        self.desk.fail_all(self.refusal)

    # what lanes tell (lane.House)

    def model_ready(self, lane: int, member: int, seconds: float) -> None:
        """A member was rehearsed."""
        with self.desk.lock:
            self._ring.measured(lane, member, seconds)

    def started(self, lane: int) -> None:
        """A lane can work."""
        now = time.monotonic()
        with self.desk.lock:
            self._watch.rose(lane, now)
            for member in self._watch.states[lane].members:
                self.desk.broken.pop(member, None)
            self._ring.worker_up(lane)
            self._schedule(now)
            if self._watch.all_up:
                self.settled.set()

    def completed(self, lane: int, reports: Sequence[Report]) -> None:
        """Claims are done; reports on claims that were taken back are late and ignored."""
        now = time.monotonic()
        finished: list[RequestSlice] = []
        worked = False
        try:
            with self.desk.lock:
                for claim_id, seconds, probabilities in reports:
                    claim = self._ring.claims.get(claim_id)
                    if claim is None:
                        continue
                    if probabilities is not None:
                        self._memory.scatter(claim.member, self._slots(claim), probabilities)
                    self.desk.tally.count(claim, seconds)
                    if self.traced:
                        self._trace(claim, now - seconds, now)
                    finished += self._ring.complete(claim_id, seconds)
                    worked = True
                if worked:
                    self._watch.worked(lane, now)
                self._schedule(now)
        finally:  # predictions of a wrong shape end their lane, what came before them still counts
            self._finish_slices(finished, lane)

    def stopped(self, lane: int, cause: str, loading: bool) -> None:
        """A lane is gone: give its claims out again; the watch starts it anew."""
        now = time.monotonic()
        desk = self.desk
        failed: dict[Request, str] = {}
        with desk.lock:
            if desk.over:
                return
            hopeless, finished = self._ring.release(lane)
            doomed = [(span.request, member) for span, member in hopeless]
            for member in self._watch.died(lane, now):
                desk.broken[member] = cause
                doomed += [(request, member) for request in desk.requests if member in request.plan.members]
            for request, member in doomed:
                open_before = not request.closed
                finished += desk.lose(request, member)
                if open_before and request.closed:
                    failed[request] = desk.lost(member, cause)
            desk.tally.failed += len(failed)
            self._schedule(now)
        for request, message in failed.items():
            request.reject(EngineError(message))
        self._finish_slices(finished, lane)
        if not self.settled.is_set() and (loading or self._watch.gives_up(lane)):
            self.refusal = cause
            self.settled.set()

    # inner: tasks

    def _running(self, lane: int) -> BatchAssignment | None:
        with self.desk.lock:
            return next(iter(self._ring.lanes[lane].held.values()), None)

    def _tasks(self, claims: Sequence[BatchAssignment]) -> list[RunBatch]:
        """What a lane is told; it reports a task together with the next when that one is short."""
        held = [claim.seconds < SHORT for claim in claims[1:]] + [False]
        return [RunBatch(c.id, c.member, self._slots(c), hold) for c, hold in zip(claims, held, strict=True)]

    def _slots(self, claim: BatchAssignment) -> tuple[tuple[int, int], ...]:
        capacity = self._ring.capacity
        return tuple([(start % capacity, stop - start) for start, stop in claim.ranges])

    def _publish(self, request: Request, offset: int, count: int) -> None:
        """Show `count` samples that were just written."""
        now = time.monotonic()
        with self.desk.lock:
            self.desk.check(request)
            if request.closed:
                return
            plan = request.plan
            asked = plan.members if plan.threshold is None else plan.members[:1]
            span = self._ring.enqueue(request, offset, count, asked, now)
            if plan.threshold is not None:
                span.progress = CascadeState.begin(asked[0], count, self._memory.predictions.shape[2])
            request.spans.append(span)
            self.desk.requests.add(request)
            self._schedule(now)

    def _schedule(self, now: float) -> None:
        """Hand out every task a lane can take now."""
        for lane, claims in self._ring.schedule(now).items():
            self._lanes[lane].send(self._tasks(claims))
        if self._ring.max_delay and (due := self._ring.next_deadline(now)) is not None and due < self._alarm:
            self._alarm = due
            self._supervisor.at(due, self._schedule_later)

    def _schedule_later(self) -> None:
        with self.desk.lock:
            self._alarm = math.inf
            self._schedule(time.monotonic())

    def _trace(self, claim: BatchAssignment, began: float, ended: float) -> None:
        """Tell the requests in a claim, those that want to know."""
        for span, start, stop in self._ring.pieces(claim.ranges):
            steps = span.request.steps
            if steps is not None:
                member = self.desk.names[claim.member]
                steps.append(
                    InferenceStep(member, claim.lane, stop - start, span.arrival, max(began, span.arrival), ended)
                )

    # inner: answers

    def _finish_slices(self, spans: list[RequestSlice], lane: int) -> None:
        """Combine spans that `lane` finished, free their slots, answer the requests that are complete."""
        if not spans:
            return
        begin = time.perf_counter()
        loss = _Loss()
        whole = [s for s in spans if s.progress is None and not s.request.closed]
        while faults := self._combiner.finish(whole):
            with self.desk.lock:
                for fault in faults:
                    self._do_without(fault, loss)
            whole = [fault.span for fault in faults if not fault.span.request.closed]
        answered = []
        with self.desk.lock:
            for span in spans:
                request = span.request
                if span.progress is not None and not request.closed and self._advance_cascade(span, loss):
                    continue
                self._ring.free(span)
                request.left -= span.stop - span.start
                if not request.left and not request.closed:
                    answered.append(request)
                    self.desk.finish(request)
            self.desk.say_room()
            self.desk.tally.combined(lane, time.perf_counter() - begin)
        for request in answered:
            self._deliver(request, request.plan.members)
        for request, message in loss.failed:
            request.reject(EngineError(message))
        self._finish_slices(loss.finished, lane)

    def _do_without(self, fault: Fault, loss: _Loss) -> None:
        """A request loses a member that did not answer it with finite numbers."""
        request = fault.span.request
        if request.closed:
            return
        loss.finished += self.desk.lose(request, fault.member)
        if request.closed:
            self.desk.tally.failed += 1
            loss.failed.append((request, self.desk.unsound(fault.member, fault.span.offset + fault.sample)))

    def _advance_cascade(self, span: RequestSlice, loss: _Loss) -> bool:
        """One step of a cascade; whether some of the span's samples are shown to a further member."""
        slot = span.start % self._ring.capacity
        predictions = self._memory.predictions[:, slot : slot + span.stop - span.start]
        if fault := check_step(span, predictions):
            self._do_without(fault, loss)
            if span.request.closed:
                return False
        steps = advance(span, span.request.plan, predictions, self._combiner.weights(range(len(predictions))))
        for member, start, stop in steps:
            self._ring.extend(span, member, start, stop)
        if steps:
            self._schedule(time.monotonic())
        return bool(steps)

    def _deliver(self, request: Request, members: tuple[int, ...]) -> None:
        """Resolve a request's future; `members` have passed every sample of it."""
        try:
            if members not in self._names:
                self._names[members] = tuple(self.desk.names[m] for m in members)
            answer = request.answer(members, self._names[members])
        except Exception as error:  # a bug of ours: it must not take the other requests with it
            broke = f"the answer could not be put together: {type(error).__name__}: {error}: please report this"
            request.reject(EngineError(broke))
            return
        request.resolve(answer)

    def _answer_early(self, request: Request) -> tuple[int, ...] | None:
        """Combine what the finished members predicted. Who passed every sample; None when some sample has nothing."""
        if sum(span.stop - span.start for span in request.spans) < request.samples:
            return None
        plan = request.plan
        known = {part.offset for part in request.parts}
        members = plan.members
        for span in request.spans:
            if span.offset in known:
                continue
            staged: CascadeState | None = span.progress
            done = tuple(staged.passed if staged else (m for m in plan.members if not span.left[m]))
            if not done:
                return None
            if staged:
                request.parts.append(staged.part(span.offset))
            else:
                while done and (faults := self._combiner.combine([span], plan._replace(members=done))):
                    done = tuple(m for m in done if m != faults[0].member)
                if not done:
                    return None
            members = tuple(m for m in members if m in done)
        request.partial = request.partial or members != plan.members
        self.desk.finish(request)
        return members
