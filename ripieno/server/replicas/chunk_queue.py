"""Requests that wait for a node: cut in parts, taken by whoever has time, put back when a node is lost."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import InvalidStateError
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.inference_result import Answer
from ripieno.engine.request import AnswerFuture
from ripieno.engine.request_queue import RequestQueue
from ripieno.engine.trace import InferenceStep
from ripieno.errors import EngineBusyError, EngineError

CHUNK_SAMPLES = 256
"""Most samples that travel together: a large request is spread over the nodes, small ones go as one."""


class RequestOptions(NamedTuple):
    """What is asked about the samples; only parts that ask the same travel together."""

    members: tuple[str, ...] | None
    spread: bool
    each: bool
    until: float | None
    """when the members that are ready must do (`time.monotonic`)"""


class PendingRequest:
    """One request: its future, and the answers to its parts as they come."""

    def __init__(
        self, images: NDArray[np.generic], plan: RequestOptions, steps: list[InferenceStep] | None = None
    ) -> None:
        self.options = plan
        self.steps = steps
        self.arrived = time.monotonic()
        self.future = AnswerFuture()
        # an early answer may lack other members in each part: it stays whole
        size = len(images) if plan.until is not None else CHUNK_SAMPLES
        starts = range(0, len(images), max(1, size))
        self.chunks = deque(RequestChunk(self, number, images[at : at + size]) for number, at in enumerate(starts))
        """parts that no node has"""
        self._answers: list[Answer | None] = [None] * len(self.chunks)
        self._lock = threading.Lock()

    def answered(self, number: int, answer: Answer) -> None:
        """The answer to one part; the last one resolves the future. An answer that is not awaited is dropped."""
        with self._lock:
            if self._answers[number] is not None:
                return
            self._answers[number] = answer
            known = [a for a in self._answers if a is not None]
            if len(known) < len(self._answers):
                return
        self._resolve(lambda: self.future.set_result(concat_results(known)))

    def failed(self, error: EngineError) -> None:
        """The whole request is without an answer."""
        with self._lock:
            self._resolve(lambda: self.future.set_exception(error))

    def _resolve(self, call: Callable[[], None]) -> None:
        """Resolve the future, unless it was cancelled or has failed."""
        with contextlib.suppress(InvalidStateError):
            call()


class RequestChunk:
    """Samples that one node answers."""

    __slots__ = ("images", "number", "request", "tries")

    def __init__(self, question: PendingRequest, number: int, images: NDArray[np.generic]) -> None:
        self.request, self.number, self.images = question, number, images
        self.tries = 0
        """how often it was lost with a node, or failed on one"""


class ChunkQueue:
    """The queue, of about `capacity` samples; thread-safe. Large requests give way to small ones (`RequestQueue`)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.samples = 0
        """that wait now"""
        self._parts = 0
        """that wait now"""
        self._queue: RequestQueue[PendingRequest] = RequestQueue(share=CHUNK_SAMPLES)
        self._idle = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, question: PendingRequest, timeout: float | None = None, *, block: bool = True) -> None:
        """Queue a request, waiting for room at most `timeout` seconds; without `block`, beyond the capacity.

        One that is larger than the queue is taken when nothing else waits. Raises EngineBusyError, EngineError if
        closed.
        """
        size = sum(len(p.images) for p in question.chunks)
        question.future.dropped = lambda: self._forget(question)
        with self._changed:
            if block and not self._changed.wait_for(lambda: self._closed or self._room(size), timeout):
                raise EngineBusyError(f"{self.samples} samples wait for a node: no room for {size} more")
            if self._closed:
                raise EngineError("the fleet was closed before it could answer")
            self._count(len(question.chunks), size)
            self._queue.put(question, size)
            self._changed.notify_all()

    def _room(self, size: int) -> bool:
        return not self.samples or self.samples + size <= self.capacity

    def take(self, timeout: float) -> list[RequestChunk]:
        """What a caller may take: its share of what waits among those who are idle; none when nothing came in time."""
        with self._changed:
            self._idle += 1
            try:
                self._changed.wait_for(lambda: self._closed or self._queue, timeout)
                most = -(-self._parts // self._idle)
            finally:
                self._idle -= 1
            taken: list[RequestChunk] = []
            rows = 0
            while self._queue and len(taken) < most:
                question = self._queue.next()
                if question.future.done():  # failed by another of its parts
                    self._remove(question)
                    continue
                part, alone = question.chunks[0], question.options.until is not None
                if taken and (
                    alone or rows + len(part.images) > CHUNK_SAMPLES or question.options != taken[0].request.options
                ):
                    break
                taken.append(question.chunks.popleft())
                self._count(-1, -len(part.images))
                self._queue.served(question, len(part.images))
                rows += len(part.images)
                if alone:
                    break
            self._changed.notify_all()
            return taken

    def requeue(self, parts: Sequence[RequestChunk]) -> None:
        """Put parts whose node was lost at the head of their requests."""
        with self._changed:
            if not self._closed:
                for part in reversed(parts):
                    question = part.request
                    self._queue.discard(question)
                    question.chunks.appendleft(part)
                    self._count(1, len(part.images))
                    self._queue.put(question, sum(len(p.images) for p in question.chunks))
                self._changed.notify_all()
                return
        _fail(parts)

    def close(self) -> None:
        """Fail what waits."""
        with self._changed:
            self._closed = True
            parts = [part for question in self._queue for part in question.chunks]
            for question in list(self._queue):
                self._remove(question)
            self._changed.notify_all()
        _fail(parts)

    def _count(self, parts: int, samples: int) -> None:
        self._parts += parts
        self.samples += samples

    def _remove(self, question: PendingRequest) -> None:
        """Forget a request's parts that wait."""
        self._count(-len(question.chunks), -sum(len(p.images) for p in question.chunks))
        self._queue.discard(question)
        question.chunks.clear()

    def _forget(self, question: PendingRequest) -> None:
        """Make room where a request was cancelled."""
        with self._changed:
            if question in self._queue:
                self._remove(question)
                self._changed.notify_all()


def _fail(parts: Sequence[RequestChunk]) -> None:
    for part in parts:
        part.request.failed(EngineError("the fleet was closed before it could answer"))


def seconds_left(plan: RequestOptions) -> float | None:
    """Until an early answer is due; None when none is asked for."""
    return None if plan.until is None else max(0.001, plan.until - time.monotonic())


def slice_result(answer: Answer, start: int, stop: int) -> Answer:
    """The answer to samples `start` to `stop` of those it is about."""
    spread = None if answer.spread is None else answer.spread[start:stop]
    each = None if answer.each is None else answer.each[:, start:stop]
    depth = None if answer.depth is None else answer.depth[start:stop]
    return Answer(answer.probabilities[start:stop], answer.members, answer.partial, spread, each, depth)


def concat_results(answers: Sequence[Answer]) -> Answer:
    """One answer of those to the parts of a request, in order."""
    if len(answers) == 1:
        return answers[0]
    first = answers[0]
    spread = None if first.spread is None else np.concatenate([a.spread for a in answers if a.spread is not None])
    each = None if first.each is None else np.concatenate([a.each for a in answers if a.each is not None], axis=1)
    depth = None if first.depth is None else np.concatenate([a.depth for a in answers if a.depth is not None])
    probabilities = np.concatenate([a.probabilities for a in answers])
    return Answer(probabilities, first.members, any(a.partial for a in answers), spread, each, depth)
