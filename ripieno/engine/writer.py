"""The way in: images are copied into the ring, by their caller where there is room, else by a thread in their turn."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.memory import Memory
from ripieno.engine.request import Request
from ripieno.engine.request_table import RequestTable
from ripieno.errors import EngineBusyError, EngineError

COPYING = 0.05
"""Seconds that a caller who may not wait for room gives another one to finish its copy."""
AT_ONCE = 4 << 20
"""Bytes that a caller who may not be held up (an event loop) copies itself: about a millisecond."""


class Writer:
    """Writes requests into `memory` in pieces of at most `piece` samples and calls `publish` for each.

    A request that finds room is written by its caller. One that does not waits in the desk's queue, from which one
    thread writes, piece by piece: it can be given up at any time, and a large one does not hold up the others.
    """

    def __init__(
        self,
        desk: RequestTable,
        memory: Memory,
        piece: int,
        publish: Callable[[Request, int, int], None],
        panic: Callable[[Exception], None],
    ) -> None:
        self._desk, self._memory, self._piece = desk, memory, piece
        self._publish, self._panic = publish, panic
        self._head = threading.Lock()
        """held while samples are copied to the ring's head"""
        self._thread: threading.Thread | None = None
        self._stopping = False

    def write(self, request: Request, images: NDArray[np.generic], timeout: float | None, block: bool) -> None:
        """Write all of a request; waits for room at most `timeout` seconds (0: it must fit at once, whole).

        Without `block` it returns at once and the request waits by itself, for as long as it likes; `images` must not
        change then until it is answered. Raises EngineBusyError when there was no room (the request is dropped then),
        EngineError when the engine is closed or a member is broken; of a request that waits by itself, both come by
        its future.
        """
        if self._write_at_once(request, images, timeout, block):
            return
        if timeout is not None and timeout <= 0:
            with self._desk.lock:  # or its deadline would yet count it as failed
                self._desk.drop(request)
            raise self._busy(request)
        written = self._queue(request, images)
        if not block:
            return
        try:
            if not written.wait(timeout):
                self.refuse(request)
        except BaseException:  # Ctrl-C
            with self._desk.lock:
                self._desk.drop(request)
            raise
        if request.refusal is not None:
            raise request.refusal

    def refuse(self, request: Request) -> None:
        """Drop a request that still waits for room: its future fails with EngineBusyError."""
        with self._desk.lock:
            if request.images is None:
                return
            request.refusal = self._busy(request)
            self._desk.drop(request)
        request.reject(request.refusal)

    def close(self) -> None:
        """Wait until nobody writes; nothing may be queued any more."""
        with self._desk.lock:
            self._stopping = True
            self._desk.room.notify_all()
        if self._thread is not None:
            self._thread.join()
        with self._head:
            pass

    def _write_at_once(self, request: Request, images: NDArray[np.generic], timeout: float | None, block: bool) -> bool:
        """Write a request for which there is room and before which nobody waits. False: it was not begun."""
        desk, ring = self._desk, self._desk.ring
        if desk.queue.waiting or request.samples > ring.capacity or (not block and images.nbytes > AT_ONCE):
            return False
        # others only copy meanwhile, and never wait for room
        if not self._head.acquire(False) and not self._wait_for_others(timeout, block):
            return False
        try:
            desk.check_open(request)
            if desk.queue.waiting or request.samples > ring.capacity - (ring.head - ring.tail):
                return False
            while request.written < request.samples and not request.closed:
                self._write_piece(request, images)
            return True
        finally:
            self._head.release()

    def _wait_for_others(self, timeout: float | None, block: bool) -> bool:
        """Take `_head` from another who copies, if that may be waited for."""
        if not block:
            return False
        return self._head.acquire() if timeout is None else self._head.acquire(timeout=max(COPYING, timeout))

    def _queue(self, request: Request, images: NDArray[np.generic]) -> threading.Event:
        """Let a request wait for its turn; the event is set when it is written, or dropped."""
        desk = self._desk
        with desk.lock:
            desk.check_open(request)
            request.admitted = threading.Event()
            if request.closed:  # its deadline has passed already
                request.admitted.set()
                return request.admitted
            request.images = images
            desk.queue.put(request, request.samples)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ripieno-writer", daemon=True)
                self._thread.start()
            desk.room.notify_all()
        return request.admitted

    def _run(self) -> None:
        """Write what is queued, a piece of one request after another."""
        while (request := self._next()) is not None:
            try:
                self._write_on(request)
            except EngineError as error:
                with self._desk.lock:
                    request.refusal = error
                    self._desk.drop(request)
                request.reject(error)
            except Exception as error:  # a bug of ours: fail the requests rather than hang
                self._panic(error)
                return

    def _write_on(self, request: Request) -> None:
        """Write one piece of a queued request, unless it was dropped meanwhile."""
        with self._head:
            images = request.images
            count = 0 if images is None else self._write_piece(request, images)
        with self._desk.lock:
            self._desk.wrote(request, count)

    def _next(self) -> Request | None:
        """Wait for a request that can be written on; None when the engine closes."""
        desk = self._desk
        with desk.lock:
            while not (desk.queue and desk.ring.piece(1)):
                if self._stopping:
                    return None
                desk.room.wait()
            return desk.queue.next()

    def _write_piece(self, request: Request, images: NDArray[np.generic]) -> int:
        """Copy and publish the next samples of a request, as many as there is room for; called with `_head` held."""
        ring, written = self._desk.ring, request.written
        count = ring.piece(min(request.samples - written, self._piece))  # the tail only makes room meanwhile
        if count:
            self._memory.write(ring.head % ring.capacity, images[written : written + count])
            request.written = written + count
            self._publish(request, written, count)
        return count

    def _busy(self, request: Request) -> EngineBusyError:
        taken = f"{self._desk.pending} of {self._desk.ring.capacity} places are taken"
        return EngineBusyError(f"no room for {request.samples} samples: {taken}; try later")
