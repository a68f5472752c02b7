"""Queue of requests that wait for a node, cut in chunks, which are put back when a node dies."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import InvalidStateError
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.inference_result import Answer, InferenceStep
from ripieno.engine.request import AnswerFuture
from ripieno.engine.request_queue import RequestQueue
from ripieno.errors import EngineBusyError, EngineError

CHUNK_SAMPLES = 256
"""Most samples in one call: a large request is spread over the nodes, small ones are sent together."""
SAMPLE_AXES = {"predictions": 0, "std": 0, "member_predictions": 1, "members_evaluated": 0, "disagreement": 0}
"""Arrays of an answer, each with the axis of its samples; the answer has those that were requested."""
CLOSED = "The replicas were closed before the request was answered."


class RequestOptions(NamedTuple):
    """Options of a request; only chunks with the same options are sent together."""

    members: tuple[str, ...] | None
    spread: bool
    each: bool
    disagreement: bool
    until: float | None
    """time at which the finished members must suffice (`time.monotonic`)"""


class PendingRequest:
    """One request: its future, and the answers to its chunks."""

    def __init__(
        self, images: NDArray[np.generic], options: RequestOptions, steps: list[InferenceStep] | None = None
    ) -> None:
        self.options = options
        self.steps = steps
        self.arrived = time.monotonic()
        self.future = AnswerFuture()
        # an early answer could lack different members in each chunk: such a request is not cut
        size = len(images) if options.until is not None else CHUNK_SAMPLES
        starts = range(0, len(images), max(1, size))
        self.chunks = deque(RequestChunk(self, number, images[at : at + size]) for number, at in enumerate(starts))
        """chunks that are not at a node"""
        self._answers: list[Answer | None] = [None] * len(self.chunks)
        self._lock = threading.Lock()

    def answered(self, number: int, answer: Answer) -> None:
        """Record the answer to one chunk; the last one resolves the future. A second answer is ignored."""
        with self._lock:
            if self._answers[number] is not None:
                return
            self._answers[number] = answer
            known = [a for a in self._answers if a is not None]
            if len(known) < len(self._answers):
                return
        with contextlib.suppress(InvalidStateError):  # it was cancelled or has failed
            self.future.set_result(concat_results(known))

    def failed(self, error: EngineError) -> None:
        """Fail the whole request."""
        with self._lock, contextlib.suppress(InvalidStateError):  # it was cancelled or has failed
            self.future.set_exception(error)


class RequestChunk:
    """Samples of a request that are sent to one node."""

    __slots__ = ("images", "number", "request", "tries")

    def __init__(self, request: PendingRequest, number: int, images: NDArray[np.generic]) -> None:
        self.request, self.number, self.images = request, number, images
        self.tries = 0
        """number of nodes that died with it, or failed on it"""


class ChunkQueue:
    """Queue of about `capacity` samples; thread-safe. Small requests overtake large ones (`RequestQueue`)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.samples = 0
        """samples that wait now"""
        self._chunks = 0
        """chunks that wait now"""
        self._queue: RequestQueue[PendingRequest] = RequestQueue(share=CHUNK_SAMPLES)
        self._idle = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, request: PendingRequest, timeout: float | None = None, *, block: bool = True) -> None:
        """Queue a request; wait for room at most `timeout` seconds, or without `block` ignore the capacity.

        A request that is larger than the queue is accepted when the queue is empty. Raises EngineBusyError, EngineError
        if closed.
        """
        size = sum(len(p.images) for p in request.chunks)
        request.future.dropped = lambda: self._forget(request)
        with self._changed:
            if block and not self._changed.wait_for(
                lambda: self._closed or not self.samples or self.samples + size <= self.capacity, timeout
            ):
                raise EngineBusyError(
                    f"Queue full: {self.samples} samples pending, cannot accept {size} more. Retry later."
                )
            if self._closed:
                raise EngineError(CLOSED)
            self._count(len(request.chunks), size)
            self._queue.put(request, size)
            self._changed.notify_all()

    def take(self, timeout: float) -> list[RequestChunk]:
        """Take a share of the waiting chunks, divided among the idle callers; none if no chunk came in time."""
        with self._changed:
            self._idle += 1
            try:
                self._changed.wait_for(lambda: self._closed or self._queue, timeout)
                most = -(-self._chunks // self._idle)
            finally:
                self._idle -= 1
            taken: list[RequestChunk] = []
            rows = 0
            while self._queue and len(taken) < most:
                request = self._queue.next()
                if request.future.done():  # another of its chunks failed
                    self._remove(request)
                    continue
                chunk, alone = request.chunks[0], request.options.until is not None
                if taken and (
                    alone or rows + len(chunk.images) > CHUNK_SAMPLES or request.options != taken[0].request.options
                ):
                    break
                taken.append(request.chunks.popleft())
                self._count(-1, -len(chunk.images))
                self._queue.served(request, len(chunk.images))
                rows += len(chunk.images)
                if alone:
                    break
            self._changed.notify_all()
            return taken

    def requeue(self, chunks: Sequence[RequestChunk]) -> None:
        """Put chunks of a failed node back to the head of their requests."""
        with self._changed:
            if not self._closed:
                for chunk in reversed(chunks):
                    request = chunk.request
                    self._queue.discard(request)
                    request.chunks.appendleft(chunk)
                    self._count(1, len(chunk.images))
                    self._queue.put(request, sum(len(p.images) for p in request.chunks))
                self._changed.notify_all()
                return
        _fail(chunks)

    def close(self) -> None:
        """Close the queue, and fail the waiting requests."""
        with self._changed:
            self._closed = True
            chunks = [chunk for request in self._queue for chunk in request.chunks]
            for request in list(self._queue):
                self._remove(request)
            self._changed.notify_all()
        _fail(chunks)

    def _count(self, chunks: int, samples: int) -> None:
        self._chunks += chunks
        self.samples += samples

    def _remove(self, request: PendingRequest) -> None:
        """Remove the waiting chunks of a request."""
        self._count(-len(request.chunks), -sum(len(p.images) for p in request.chunks))
        self._queue.discard(request)
        request.chunks.clear()

    def _forget(self, request: PendingRequest) -> None:
        """Remove a cancelled request."""
        with self._changed:
            if request in self._queue:
                self._remove(request)
                self._changed.notify_all()


def _fail(chunks: Sequence[RequestChunk]) -> None:
    for chunk in chunks:
        chunk.request.failed(EngineError(CLOSED))


def seconds_left(options: RequestOptions) -> float | None:
    """Return the seconds until an early answer is due; None when none is requested."""
    return None if options.until is None else max(0.001, options.until - time.monotonic())


def slice_result(answer: Answer, start: int, stop: int) -> Answer:
    """Return the answer to samples `start` to `stop` of `answer`."""
    cut: Any = {
        name: value[:, start:stop] if axis else value[start:stop]
        for name, axis in SAMPLE_AXES.items()
        if (value := getattr(answer, name)) is not None
    }
    return dataclasses.replace(answer, **cut)


def concat_results(answers: Sequence[Answer]) -> Answer:
    """Concatenate the answers to the chunks of a request, in order."""
    if len(answers) == 1:
        return answers[0]
    joined: Any = {
        name: np.concatenate([getattr(answer, name) for answer in answers], axis)
        for name, axis in SAMPLE_AXES.items()
        if getattr(answers[0], name) is not None
    }
    return dataclasses.replace(answers[0], partial=any(answer.partial for answer in answers), **joined)
