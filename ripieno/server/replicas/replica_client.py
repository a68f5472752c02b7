"""Client of one replica: the threads that send requests to it, and its health check."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ripieno.engine.inference_result import Answer, InferenceStep
from ripieno.errors import EngineError, EngineTimeoutError, error_summary
from ripieno.server.replicas.chunk_queue import ChunkQueue, RequestChunk, seconds_left, slice_result
from ripieno.server.replicas.replica import ReplicaStatus

CALL_THREADS = 2
"""Concurrent calls to a node: while one is answered, the next is sent."""
TRIES = 4
"""Nodes that may fail or die on the same samples before their request fails."""
POLL_SECONDS = 0.5
"""Seconds between two checks of the node while an answer is awaited."""
PING = 5.0
"""Seconds within which a replica must return its status."""


class ReplicaUnavailableError(Exception):
    """The node, or the connection to it, has failed."""


class ReplicaClient:
    """Client of a node by its `name`; `handle` is Ray Serve's handle to its replica. `up` is set while it answers."""

    def __init__(self, name: str, handle: Any, waiting: ChunkQueue) -> None:
        self.name, self.handle, self.queue = name, handle, waiting
        self.up = threading.Event()
        self.status: ReplicaStatus | None = None
        """last known status"""
        self.closed = threading.Event()
        self._went_down = 0.0
        jobs: list[Callable[[], None]] = [self._poll_status, *[self._call] * CALL_THREADS]
        self._threads = [threading.Thread(target=job, name=f"ripieno-{name}", daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()

    def down(self) -> None:
        """Mark the node as down: it gets no requests until it reports that it is ready."""
        self._went_down = time.monotonic()
        self.up.clear()

    def leave(self) -> None:
        """Send nothing more; chunks in flight go back to the queue."""
        self.closed.set()
        self.down()

    def join(self) -> None:
        """Wait for the threads."""
        self.leave()
        for thread in self._threads:
            thread.join(2 * PING)

    # calls

    def _call(self) -> None:
        while not self.closed.is_set():
            if not self.up.wait(POLL_SECONDS):
                continue
            chunks = self.queue.take(POLL_SECONDS)
            if not self.up.is_set():
                self.queue.requeue(chunks)
                continue
            try:
                began = time.monotonic()
                if chunks and (answer := self._infer(chunks)) is not None:
                    self._resolve(chunks, answer, began)
            except EngineTimeoutError as error:  # the deadline of the client
                for chunk in chunks:
                    chunk.request.failed(EngineTimeoutError(str(error)))
            except EngineError as error:
                self._retry(chunks, _message(error))
            except ReplicaUnavailableError as error:
                self.down()
                self._retry(chunks, str(error))

    def _infer(self, chunks: Sequence[RequestChunk]) -> Answer | None:
        """Return the answer of the replica; None when no caller waits for it any more.

        Raises EngineError when its engine fails, ReplicaUnavailableError when it cannot be reached.
        """
        options = chunks[0].request.options
        images = chunks[0].images if len(chunks) == 1 else np.concatenate([p.images for p in chunks])
        try:
            response = self.handle.answer.remote(
                images, options.members, options.spread, options.each, options.disagreement, seconds_left(options)
            )
            while True:
                try:
                    answer: Answer = response.result(timeout_s=POLL_SECONDS)
                    return answer
                except TimeoutError:
                    awaited = not all(p.request.future.done() for p in chunks)
                    if awaited and self.up.is_set():
                        continue
                    with suppress(Exception):
                        response.cancel()
                    if awaited:
                        raise ReplicaUnavailableError("The replica does not answer") from None
                    return None
        except (EngineError, ReplicaUnavailableError):
            raise
        except Exception as error:  # Ray has a dozen exceptions for a node that dies
            raise ReplicaUnavailableError(_message(error)) from error

    def _resolve(self, chunks: Sequence[RequestChunk], answer: Answer, began: float) -> None:
        start, ended = 0, time.monotonic()
        for chunk in chunks:
            request, stop = chunk.request, start + len(chunk.images)
            if request.steps is not None:
                request.steps.append(InferenceStep(self.name, 0, stop - start, request.arrived, began, ended))
            request.answered(chunk.number, slice_result(answer, start, stop))
            start = stop

    def _retry(self, chunks: Sequence[RequestChunk], why: str) -> None:
        """Put chunks back for another node, or for this one when it is up again."""
        for chunk in chunks:
            chunk.tries += 1
            if chunk.tries >= TRIES:
                chunk.request.failed(EngineError(f"{chunk.tries} nodes failed on this request. Last error: {why}"))
        self.queue.requeue([chunk for chunk in chunks if not chunk.request.future.done()])

    # health

    def _poll_status(self) -> None:
        while not self.closed.is_set():
            asked_at = time.monotonic()
            try:
                response = self.handle.status.remote()
                self.status = response.result(timeout_s=PING)
                # a status requested before the node went down is out of date
                if self.status.ready and asked_at > self._went_down and not self.closed.is_set():
                    self.up.set()
            except Exception:
                self.down()
            self.closed.wait(POLL_SECONDS)


def _message(error: Exception) -> str:
    """Return the last line of an error, without the class name that Ray puts in front."""
    return error_summary(error, line=-1).removeprefix("ripieno.errors.").removeprefix("EngineError: ")
