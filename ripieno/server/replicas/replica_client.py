"""One node of a fleet: its replica, the callers that bring it work, and the watch over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ripieno.engine.inference_result import Answer
from ripieno.engine.trace import InferenceStep
from ripieno.errors import EngineError, EngineTimeoutError
from ripieno.server.replicas.chunk_queue import ChunkQueue, RequestChunk, seconds_left, slice_result
from ripieno.server.replicas.replica import ReplicaStatus

CALL_THREADS = 2
"""Calls under way at a node: while one is answered the next is on its way."""
TRIES = 4
"""Nodes that may fail or die over the same samples before they are given up."""
LOOK = 0.5
"""Seconds between two looks at whether the node is still there, while an answer is awaited."""
PING = 5.0
"""Seconds within which a replica must say how it is."""


class ReplicaUnavailableError(Exception):
    """The node, or the way to it, is gone."""


class ReplicaClient:
    """A node by its `name`; `handle` is Ray Serve's way to its replica. `up` while it is known to answer."""

    def __init__(self, name: str, handle: Any, waiting: ChunkQueue) -> None:
        self.name, self.handle, self.queue = name, handle, waiting
        self.up = threading.Event()
        self.status: ReplicaStatus | None = None
        """as it was last told"""
        self.retried = 0
        """parts that went back to the queue"""
        self.closed = threading.Event()
        self._went_down = 0.0
        jobs: list[Callable[[], None]] = [self._watch, *[self._call] * CALL_THREADS]
        self._threads = [threading.Thread(target=job, name=f"ripieno-{name}", daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()

    def down(self) -> None:
        """It does not answer: nothing is sent there until it says that it is well."""
        self._went_down = time.monotonic()
        self.up.clear()

    def leave(self) -> None:
        """Send nothing more; what is under way goes back to the queue."""
        self.closed.set()
        self.down()

    def join(self) -> None:
        """Wait for the threads."""
        self.leave()
        for thread in self._threads:
            thread.join(2 * PING)

    # the callers

    def _call(self) -> None:
        while not self.closed.is_set():
            if not self.up.wait(LOOK):
                continue
            parts = self.queue.take(LOOK)
            if not self.up.is_set():
                self.queue.requeue(parts)
                continue
            try:
                began = time.monotonic()
                if parts and (answer := self._infer(parts)) is not None:
                    self._resolve(parts, answer, began)
            except EngineTimeoutError as error:  # it was the client's own deadline
                for part in parts:
                    part.request.failed(EngineTimeoutError(str(error)))
            except EngineError as error:
                self._retry(parts, _words(error))
            except ReplicaUnavailableError as error:
                self.down()
                self._retry(parts, str(error))

    def _infer(self, parts: Sequence[RequestChunk]) -> Answer | None:
        """The replica's answer, None when nobody waits for it any more.

        Raises EngineError when its engine fails, LostError when it is not there.
        """
        plan = parts[0].request.options
        images = parts[0].images if len(parts) == 1 else np.concatenate([p.images for p in parts])
        try:
            response = self.handle.answer.remote(images, plan.members, plan.spread, plan.each, seconds_left(plan))
            while True:
                try:
                    answer: Answer = response.result(timeout_s=LOOK)
                    return answer
                except TimeoutError:
                    wanted = not all(p.request.future.done() for p in parts)
                    if wanted and self.up.is_set():
                        continue
                    with suppress(Exception):
                        response.cancel()
                    if wanted:
                        raise ReplicaUnavailableError("it does not answer") from None
                    return None
        except (EngineError, ReplicaUnavailableError):
            raise
        except Exception as error:  # whatever Ray makes of a node that dies: there are a dozen words for it
            raise ReplicaUnavailableError(_words(error)) from error

    def _resolve(self, parts: Sequence[RequestChunk], answer: Answer, began: float) -> None:
        start, ended = 0, time.monotonic()
        for part in parts:
            question, stop = part.request, start + len(part.images)
            if question.steps is not None:
                question.steps.append(InferenceStep(self.name, 0, stop - start, question.arrived, began, ended))
            question.answered(part.number, slice_result(answer, start, stop))
            start = stop

    def _retry(self, parts: Sequence[RequestChunk], why: str) -> None:
        """Let another node try, or this one when it is back."""
        for part in parts:
            part.tries += 1
            if part.tries >= TRIES:
                part.request.failed(EngineError(f"{part.tries} nodes failed over this request, the last: {why}"))
        kept = [part for part in parts if not part.request.future.done()]
        self.retried += len(kept)
        self.queue.requeue(kept)

    # the watch

    def _watch(self) -> None:
        while not self.closed.is_set():
            asked = time.monotonic()
            try:
                response = self.handle.about.remote()
                self.status = response.result(timeout_s=PING)
                # what was asked before it fell says nothing of it now
                if self.status.ready and asked > self._went_down and not self.closed.is_set():
                    self.up.set()
            except Exception:
                self.down()
            self.closed.wait(LOOK)


def _words(error: Exception) -> str:
    """The last line of an error, without the class in front that Ray adds."""
    line = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return line.removeprefix("ripieno.errors.").removeprefix("EngineError: ")
