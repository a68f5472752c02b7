"""The way in: one writer at a time copies a request's images into the ring, and waits when it is full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.desk import Desk
from ripieno.engine.memory import Memory
from ripieno.engine.request import Request
from ripieno.errors import EngineBusyError

COPYING = 0.05
"""Seconds that even a caller who may not wait gives another writer to finish its copy."""


class Writer:
    """Writes requests into `memory` in pieces of at most `piece` samples and calls `publish` for each."""

    def __init__(self, desk: Desk, memory: Memory, piece: int, publish: Callable[[Request, int, int], None]) -> None:
        self._desk, self._memory, self._piece, self._publish = desk, memory, piece, publish
        self._door = threading.Lock()

    def write(self, request: Request, images: NDArray[np.generic], timeout: float | None) -> None:
        """Write all of a request; waits for room at most `timeout` seconds (0: it must fit at once, whole).

        Raises EngineBusyError when there was none (the request is dropped then), EngineError when the engine is closed
        or a member is broken.
        """
        desk, ring = self._desk, self._desk.ring
        until = None if timeout is None else time.monotonic() + timeout
        if not self._enter(timeout):
            raise self._refused(request)
        try:
            desk.check_open(request)
            if timeout is not None and timeout <= 0 and request.samples > ring.capacity - desk.pending:
                raise self._refused(request)
            written = 0
            while written < request.samples and not request.closed:
                count = self._wait_for_room(request, request.samples - written, until)
                if not count:
                    break
                slot = ring.head % ring.capacity
                self._memory.write(slot, images[written : written + count])
                self._publish(request, written, count)
                written += count
        finally:
            self._door.release()

    def wait(self) -> None:
        """Until nobody writes."""
        with self._door:
            pass

    def _enter(self, timeout: float | None) -> bool:
        """Become the one writer. Another writer's copying is waited for; its waiting for room only by the patient."""
        if timeout is None:
            return self._door.acquire()
        if timeout <= 0 and self._desk.writer_waits:
            return False
        return self._door.acquire(timeout=max(COPYING, timeout))

    def _wait_for_room(self, request: Request, samples: int, until: float | None) -> int:
        """How many samples can be written now; 0 when the request was dropped meanwhile."""
        desk = self._desk
        most = min(samples, self._piece)
        if count := desk.ring.piece(most):  # only this writer moves the head, and the tail only makes room
            return count
        with desk.room:
            desk.writer_waits = True
            try:
                while not (count := desk.ring.piece(most)) and not request.closed:
                    desk.check_open(request)
                    wait = None if until is None else until - time.monotonic()
                    if wait is not None and wait <= 0:
                        desk.drop(request)
                        raise self._busy(request)
                    desk.room.wait(wait)
            finally:
                desk.writer_waits = False
        return count

    def _refused(self, request: Request) -> EngineBusyError:
        """The error for a request that never began; it is dropped, or its deadline would yet count it as failed."""
        with self._desk.lock:
            self._desk.drop(request)
        return self._busy(request)

    def _busy(self, request: Request) -> EngineBusyError:
        taken = f"{self._desk.pending} of {self._desk.ring.capacity} places are taken"
        return EngineBusyError(f"no room for {request.samples} samples: {taken}; try later")
