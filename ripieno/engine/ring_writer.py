"""The writer copies images into the ring: in the caller's thread if there is room, else in a thread, in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.request import Request
from ripieno.engine.request_table import RequestTable
from ripieno.engine.ring_memory import Memory
from ripieno.errors import EngineBusyError, EngineError

CLOSING = 5.0
"""Seconds to wait for a copy when the engine closes."""
COPYING = 0.05
"""Seconds for which a caller that may not wait for room waits for the copy of another caller."""
AT_ONCE = 4 << 20
"""Most bytes that a caller that must not block (an event loop) copies itself: about a millisecond."""


class RingWriter:
    """RingWriter of requests into `memory`, in pieces of at most `piece` samples; it calls `publish` for each.

    If there is room, the caller writes the request. Otherwise the request waits in the queue of the table, from which
    one thread writes piece by piece. It can be dropped at any time, and a large one does not block later ones.
    """

    def __init__(
        self,
        table: RequestTable,
        memory: Memory,
        piece: int,
        publish: Callable[[Request, int, int], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._table, self._memory, self._piece = table, memory, piece
        self._publish, self._on_error = publish, on_error
        self._write_lock = threading.Lock()
        """held while samples are copied to the head of the ring"""
        self._thread: threading.Thread | None = None
        self._stopping = False

    def write(self, request: Request, images: NDArray[np.generic], timeout: float | None, block: bool) -> None:
        """Write a whole request; wait for room at most `timeout` seconds (0: the whole request must fit at once).

        Without `block` the call returns at once, and the request waits without a time limit; `images` must not change
        until it is answered. Raises EngineBusyError when there was no room (the request is dropped then), EngineError
        when the engine is closed or a member is broken. Without `block`, the future of a waiting request gets both.
        """
        if self._write_at_once(request, images, timeout, block):
            return
        if timeout is not None and timeout <= 0:
            with self._table.lock:  # else its deadline would later count it as failed
                self._table.drop(request)
            raise self._busy(request)
        written = self._queue(request, images)
        if not block:
            return
        try:
            if not written.wait(timeout):
                self.refuse(request)
        except BaseException:  # Ctrl-C
            with self._table.lock:
                self._table.drop(request)
            raise
        if request.refusal is not None:
            raise request.refusal

    def refuse(self, request: Request) -> None:
        """Drop a request that still waits for room; its future fails with EngineBusyError."""
        with self._table.lock:
            if request.images is None:
                return
            request.refusal = self._busy(request)
            self._table.drop(request)
        request.reject(request.refusal)

    def close(self) -> None:
        """Wait until all writing has ended; no request may be queued any more."""
        with self._table.lock:
            self._stopping = True
            self._table.room.notify_all()
        if self._thread is not None:
            self._thread.join()
        # Ctrl-C just after a caller took the lock would leave it locked for ever; a copy takes less than this
        if self._write_lock.acquire(timeout=CLOSING):
            self._write_lock.release()

    def _write_at_once(self, request: Request, images: NDArray[np.generic], timeout: float | None, block: bool) -> bool:
        """Write a request if there is room and the queue is empty; return whether it was begun."""
        table, ring = self._table, self._table.ring
        if table.queue.waiting or request.samples > ring.capacity or (not block and images.nbytes > AT_ONCE):
            return False
        # other callers hold this lock only to copy, never while they wait for room
        if not self._write_lock.acquire(False):
            longest = -1 if timeout is None else max(COPYING, timeout)
            if not block or not self._write_lock.acquire(timeout=longest):
                return False
        try:
            table.check_open(request)
            if table.queue.waiting or request.samples > ring.capacity - (ring.head - ring.tail):
                return False
            while request.written < request.samples and not request.closed:
                self._write_piece(request, images)
            return True
        finally:
            self._write_lock.release()

    def _queue(self, request: Request, images: NDArray[np.generic]) -> threading.Event:
        """Queue a request; return the event that is set when it is written or dropped."""
        table = self._table
        with table.lock:
            table.check_open(request)
            request.admitted = threading.Event()
            if request.closed:  # its deadline has passed already
                request.admitted.set()
                return request.admitted
            request.images = images
            table.queue.put(request, request.samples)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ripieno-writer", daemon=True)
                self._thread.start()
            table.room.notify_all()
        return request.admitted

    def _run(self) -> None:
        while (request := self._next()) is not None:
            try:
                self._write_next(request)
            except EngineError as error:
                with self._table.lock:
                    request.refusal = error
                    self._table.drop(request)
                request.reject(error)
            except Exception as error:  # a bug: fail the requests, so that none hangs
                self._on_error(error)
                return

    def _write_next(self, request: Request) -> None:
        """Write the next piece of a queued request, unless it was dropped meanwhile."""
        with self._write_lock:
            images = request.images
            count = 0 if images is None else self._write_piece(request, images)
        with self._table.lock:
            self._table.wrote(request, count)

    def _next(self) -> Request | None:
        """Wait for a request of which a piece can be written; None when the engine closes."""
        table = self._table
        with table.lock:
            while not (table.queue and table.ring.piece(1)):
                if self._stopping:
                    return None
                table.room.wait()
            return table.queue.next()

    def _write_piece(self, request: Request, images: NDArray[np.generic]) -> int:
        """Copy and publish the next samples of a request that fit; called with `_write_lock` held."""
        ring, written = self._table.ring, request.written
        count = ring.piece(min(request.samples - written, self._piece))  # meanwhile the tail can only make room
        if count:
            self._memory.write(ring.head % ring.capacity, images[written : written + count])
            request.written = written + count
            self._publish(request, written, count)
        return count

    def _busy(self, request: Request) -> EngineBusyError:
        taken = f"{self._table.pending} of {self._table.ring.capacity} slots in the queue are taken"
        return EngineBusyError(f"Queue full: {taken}, cannot accept {request.samples} more samples. Retry later.")
