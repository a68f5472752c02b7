"""The dispatcher: it admits requests, sends tasks to workers, has predictions combined, and resolves answers.

Each thread that changes the ring's bookkeeping also sends the tasks that became possible (`_schedule`). It is a caller
that writes, a worker that has finished, or the event loop. No dispatching thread runs between a request and the
workers, and nothing polls.
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
from ripieno.engine.combiner import EnsembleCombiner, Fault
from ripieno.engine.event_loop import EventLoop
from ripieno.engine.health_monitor import HealthMonitor
from ripieno.engine.inference_result import InferenceStep
from ripieno.engine.messages import RunBatch
from ripieno.engine.request import Request
from ripieno.engine.request_table import RequestTable
from ripieno.engine.ring import BatchAssignment, RequestSlice, Ring
from ripieno.engine.ring_memory import Memory
from ripieno.engine.ring_writer import RingWriter
from ripieno.engine.worker import Report, Worker
from ripieno.errors import EngineError, EngineTimeoutError
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle

SHORT = 50e-6
"""Seconds below which a task is short: it takes less time than waking the thread that waits for it."""


@dataclass
class _MemberLoss:
    """Effect of the loss of members on requests."""

    failed: list[tuple[Request, str]] = field(default_factory=list)
    """requests that need the lost members, with the error message"""
    finished: list[RequestSlice] = field(default_factory=list)
    """slices that wait for no other member"""


class Dispatcher:
    """Connection of ring, memory and workers; see the module docstring. Implements `WorkerEvents`.

    `units` holds the members of each unit.
    """

    def __init__(
        self,
        bundle: Bundle,
        units: Sequence[Sequence[int]],
        ring: Ring,
        memory: Memory,
        event_loop: EventLoop,
        health: HealthMonitor,
        min_members: int | None = None,
    ) -> None:
        self._ring, self._memory, self._event_loop, self._health = ring, memory, event_loop, health
        self._kind, self._units = kind_of(bundle.task), units
        self._combiner = EnsembleCombiner(bundle.ensemble, memory, self._kind)
        self._workers: Sequence[Worker] = ()
        self.request_table = RequestTable(ring, bundle.ensemble.members, units, min_members, health.patience.deaths)
        # a large request is written in pieces, so that its first slots are freed while its last samples are written
        largest = max(instance.batch_size for worker in ring.workers for instance in worker.instances.values())
        piece = max(largest, ring.capacity // 4 // largest * largest)
        self._writer = RingWriter(self.request_table, memory, piece, self._publish, self.fail)
        self._names: dict[tuple[int, ...], tuple[str, ...]] = {}
        """ids of the members by their indices"""
        self.settled = threading.Event()
        """set when all workers are up, or one cannot be started"""
        self.refusal = ""
        """reason why the engine could not start"""
        self._next_schedule = math.inf
        """next time at which `_schedule_later` runs; a later timer also runs, and may find nothing to do"""
        self.traced = False
        """True once a request has asked for its steps"""

    def start(self, workers: Sequence[Worker]) -> None:
        """Start the workers; `settled` is set when all are up or one cannot be started."""
        self._workers = workers
        self._health.begin(workers, self._running, self.stopped)

    # requests

    def admit(self, request: Request, images: NDArray[np.generic], timeout: float | None, block: bool) -> None:
        """Write the images of a request into the ring: see `RingWriter.write`."""
        self._writer.write(request, images, timeout, block)
        if not block and timeout is not None and request.images is not None:
            until = time.monotonic() + timeout
            request.timers += (self._event_loop.at(until, lambda: self._writer.refuse(request)),)

    def drop(self, request: Request) -> None:
        """Drop a request that its caller has cancelled."""
        with self.request_table.lock:
            self.request_table.drop(request)

    def expire(self, request: Request, partial: bool) -> None:
        """End a request at its deadline: with `partial`, answer with the members that finished, else fail it."""
        with self.request_table.lock:
            if request.closed:
                return
            members = self._answer_early(request) if partial else None
            self.request_table.drop(request)
            self.request_table.tally.failed += members is None
        if members is not None:
            self._deliver(request, members)
            return
        late = f"The deadline passed with {request.left} of {request.samples} samples unanswered"
        request.reject(EngineTimeoutError(f"{late}. Allow more time, or partial answers."))

    def close(self, drain: bool, timeout: float | None) -> None:
        """Accept no more requests, wait for those in flight if `drain`, and fail the rest."""
        table = self.request_table
        with table.lock:
            table.closed = table.closed or "The engine is closed."
            table.drains = drain
            refused = table.refuse_waiting(table.closed, begun=not drain)
        for request in refused:
            request.reject(EngineError(table.closed))
        with table.lock:
            if drain:
                table.idle.wait_for(lambda: not table.requests, timeout)
            table.drains = False
        table.fail_all("The engine was closed before the request was answered.")
        self._writer.close()

    def fail(self, error: Exception) -> None:
        """Fail all requests after an internal error in the background, so that none hangs."""
        self.refusal = f"Internal engine error: {type(error).__name__}: {error}. Please report this."
        self.request_table.closed = self.refusal
        self.settled.set()
        self.request_table.fail_all(self.refusal)

    # events of the workers (WorkerEvents)

    def model_ready(self, worker: int, unit: int, seconds: float) -> None:
        """Record the `seconds` per sample of a unit that was warmed up."""
        with self.request_table.lock:
            self._ring.measured(worker, unit, seconds)

    def started(self, worker: int) -> None:
        """Record that a worker is up, and give it tasks."""
        now = time.monotonic()
        with self.request_table.lock:
            self._health.rose(worker, now)
            for unit in self._health.states[worker].units:
                self.request_table.broken.pop(unit, None)
            self._ring.worker_up(worker)
            self._schedule(now)
            if self._health.all_up:
                self.settled.set()

    def completed(self, worker: int, reports: Sequence[Report]) -> None:
        """Record finished assignments; reports on assignments that were withdrawn are late and ignored."""
        now = time.monotonic()
        finished: list[RequestSlice] = []
        worked = False
        try:
            with self.request_table.lock:
                for assignment_id, seconds, predictions in reports:
                    assignment = self._ring.assignments.get(assignment_id)
                    if assignment is None:
                        continue
                    if predictions is not None:
                        slots = self._slots(assignment)
                        for member, own in predictions:
                            self._memory.scatter(member, slots, own)
                    self.request_table.tally.count(assignment, seconds)
                    if self.traced:
                        self._trace(assignment, now - seconds, now)
                    finished += self._ring.complete(assignment_id, seconds)
                    worked = True
                if worked:
                    self._health.worked(worker, now)
                self._schedule(now)
        finally:  # predictions of a wrong shape end the worker; earlier reports still count
            self._finish_slices(finished, worker)

    def stopped(self, worker: int, cause: str, loading: bool) -> None:
        """Reassign the work of a dead worker; the health monitor restarts it."""
        now = time.monotonic()
        table = self.request_table
        failed: dict[Request, str] = {}
        with table.lock:
            if table.over:
                return
            abandoned, finished = self._ring.release(worker)
            losses = [(request_slice.request, unit) for request_slice, unit in abandoned]
            for unit in self._health.died(worker, now):
                table.broken[unit] = cause
                losses += [(request, unit) for request in table.requests if unit in request.plan.units]
            for request, unit in losses:
                was_open, members = not request.closed, self._units[unit]
                finished += table.lose(request, members)
                if was_open and request.closed:
                    failed[request] = table.lost(members[0], cause)
            table.tally.failed += len(failed)
            self._schedule(now)
        for request, message in failed.items():
            request.reject(EngineError(message))
        self._finish_slices(finished, worker)
        if not self.settled.is_set() and (loading or self._health.gives_up(worker)):
            self.refusal = cause
            self.settled.set()

    # inner: tasks

    def _running(self, worker: int) -> BatchAssignment | None:
        with self.request_table.lock:
            return next(iter(self._ring.workers[worker].held.values()), None)

    def _tasks(self, assignments: Sequence[BatchAssignment]) -> list[RunBatch]:
        """Return the tasks of assignments; a worker reports a task together with the next one if that is short."""
        hold = [assignment.seconds < SHORT for assignment in assignments[1:]] + [False]
        return [RunBatch(a.id, a.unit, self._slots(a), held) for a, held in zip(assignments, hold, strict=True)]

    def _slots(self, assignment: BatchAssignment) -> tuple[tuple[int, int], ...]:
        capacity = self._ring.capacity
        return tuple([(start % capacity, stop - start) for start, stop in assignment.ranges])

    def _publish(self, request: Request, offset: int, count: int) -> None:
        now = time.monotonic()
        with self.request_table.lock:
            self.request_table.check(request)
            if request.closed:
                return
            plan = request.plan
            units = plan.units if plan.threshold is None else (next(iter(plan.units)),)
            request_slice = self._ring.enqueue(request, offset, count, units, now)
            if plan.threshold is not None:
                output = self._memory.predictions.shape[2:]
                request_slice.progress = CascadeState.begin(next(iter(plan.units)), count, output, plan.temperature)
            request.slices.append(request_slice)
            self.request_table.requests.add(request)
            self._schedule(now)

    def _schedule(self, now: float) -> None:
        """Send every task that a worker can take now."""
        for worker, assignments in self._ring.schedule(now).items():
            self._workers[worker].send(self._tasks(assignments))
        if self._ring.max_delay and (due := self._ring.next_deadline(now)) is not None and due < self._next_schedule:
            self._next_schedule = due
            self._event_loop.at(due, self._schedule_later)

    def _schedule_later(self) -> None:
        with self.request_table.lock:
            self._next_schedule = math.inf
            self._schedule(time.monotonic())

    def _trace(self, assignment: BatchAssignment, began: float, ended: float) -> None:
        for request_slice, start, stop in self._ring.pieces(assignment.ranges):
            request, arrival = request_slice.request, request_slice.arrival
            if request.steps is not None:
                times = arrival, max(began, arrival), ended
                names = [self.request_table.names[m] for m in request.plan.units.get(assignment.unit, ())]
                request.steps += [InferenceStep(name, assignment.worker, stop - start, *times) for name in names]

    # inner: answers

    def _finish_slices(self, slices: list[RequestSlice], worker: int) -> None:
        """Combine slices that `worker` finished, free their slots, answer the requests that are complete."""
        if not slices:
            return
        begin = time.perf_counter()
        loss = _MemberLoss()
        whole = [s for s in slices if s.progress is None and not s.request.closed]
        while faults := self._combiner.finish(whole):
            with self.request_table.lock:
                for fault in faults:
                    self._drop_member(fault, loss)
            whole = [fault.request_slice for fault in faults if not fault.request_slice.request.closed]
        answered = []
        with self.request_table.lock:
            for request_slice in slices:
                request = request_slice.request
                in_cascade = request_slice.progress is not None and not request.closed
                if in_cascade and self._advance_cascade(request_slice, loss):
                    continue
                self._ring.free(request_slice)
                request.left -= request_slice.stop - request_slice.start
                if not request.left and not request.closed:
                    answered.append(request)
                    self.request_table.finish(request)
            self.request_table.say_room()
            self.request_table.tally.combined(worker, time.perf_counter() - begin)
        for request in answered:
            self._deliver(request, request.plan.members)
        for request, message in loss.failed:
            request.reject(EngineError(message))
        self._finish_slices(loss.finished, worker)

    def _drop_member(self, fault: Fault, loss: _MemberLoss) -> None:
        """Remove a member from a request for which its predictions are not all finite."""
        request = fault.request_slice.request
        if request.closed:
            return
        loss.finished += self.request_table.lose(request, (fault.member,))
        if request.closed:
            self.request_table.tally.failed += 1
            loss.failed.append(
                (request, self.request_table.unsound(fault.member, fault.request_slice.offset + fault.sample))
            )

    def _advance_cascade(self, request_slice: RequestSlice, loss: _MemberLoss) -> bool:
        """Take one step of a cascade; return whether a further unit runs on samples of the slice."""
        slot = request_slice.start % self._ring.capacity
        predictions = self._memory.predictions[:, slot : slot + request_slice.stop - request_slice.start]
        while fault := check_step(request_slice, predictions):
            self._drop_member(fault, loss)
            if request_slice.request.closed:
                return False
        shares = self._combiner.weights(range(len(predictions))).astype(np.float32)
        steps = advance(request_slice, request_slice.request.plan, predictions, shares, self._kind)
        for unit, start, stop in steps:
            self._ring.extend(request_slice, unit, start, stop)
        if steps:
            self._schedule(time.monotonic())
        return bool(steps)

    def _deliver(self, request: Request, members: tuple[int, ...]) -> None:
        """Resolve the future of a request; `members` have predicted all its samples."""
        try:
            if members not in self._names:
                self._names[members] = tuple(self.request_table.names[m] for m in members)
            answer = request.answer(members, self._names[members])
        except Exception as error:  # an internal error: it must not fail the other requests
            message = f"The answer could not be assembled: {type(error).__name__}: {error}. Please report this."
            request.reject(EngineError(message))
            return
        request.resolve(answer)

    def _answer_early(self, request: Request) -> tuple[int, ...] | None:
        """Combine the finished members; return those that predicted every sample, None if one has no prediction."""
        if sum(request_slice.stop - request_slice.start for request_slice in request.slices) < request.samples:
            return None
        plan = request.plan
        known = {part.offset for part in request.parts}
        members = plan.members
        for request_slice in request.slices:
            if request_slice.offset in known:
                continue
            state: CascadeState | None = request_slice.progress
            left = {m for unit, own in plan.units.items() if request_slice.left[unit] for m in own}
            done = tuple(state.passed if state else (m for m in plan.members if m not in left))
            if not done:
                return None
            if state:
                request.parts.append(state.part(request_slice.offset, self._kind))
            else:
                while done and (faults := self._combiner.combine([request_slice], plan._replace(members=done))):
                    done = tuple(m for m in done if m != faults[0].member)
                if not done:
                    return None
            members = tuple(m for m in members if m in done)
        request.partial = request.partial or members != plan.members
        self.request_table.finish(request)
        return members
