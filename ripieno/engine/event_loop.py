"""One thread with an event loop for all events outside requests: sockets of workers, and timers.

Only this thread starts worker processes, because their parent-death signal is tied to the thread that starts them.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import threading
import time
from collections.abc import Callable


class Timer:
    """Callback scheduled for a time."""

    __slots__ = ("_call", "_cancelled")

    def __init__(self, call: Callable[[], None], cancelled: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call
        self._cancelled = cancelled

    @property
    def pending(self) -> bool:
        """True while it is scheduled."""
        return self._call is not None

    def take(self) -> Callable[[], None] | None:
        """Return the callback once; None after it was taken or cancelled."""
        call, self._call = self._call, None
        return call

    def cancel(self) -> None:
        """Cancel the callback, and release its references at once."""
        if self.take():
            self._cancelled()


class EventLoop:
    """Event loop of callbacks, which must not block. Times are those of `time.monotonic`."""

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._readers: dict[int, Callable[[], None]] = {}
        self._times: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ripieno-event-loop", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def at(self, when: float, call: Callable[[], None]) -> Timer:
        """Run `call` in the event loop's thread at `when` or soon after. Thread-safe."""
        timer = Timer(call, self._forget)
        with self._lock:
            if self._stopping:
                return timer
            first = not self._times or when < self._times[0][0]
            heapq.heappush(self._times, (when, next(self._order), timer))
            if first and threading.current_thread() is not self._thread:
                os.eventfd_write(self._wake, 1)
        return timer

    def soon(self, call: Callable[[], None]) -> None:
        """Run `call` in the event loop's thread."""
        self.at(time.monotonic(), call)

    def wait_for(self, call: Callable[[], object]) -> None:
        """Run `call` in the event loop's thread, and wait until it has run."""
        if threading.current_thread() is self._thread:
            call()
            return
        done = threading.Event()

        def run() -> None:
            try:
                call()
            finally:
                done.set()

        self.soon(run)
        done.wait()

    def watch(self, descriptor: int, call: Callable[[], None]) -> None:
        """Run `call` whenever `descriptor` is readable or closed by its peer. The event loop's thread only."""
        self._readers[descriptor] = call
        self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor, before it is closed. The event loop's thread only."""
        if self._readers.pop(descriptor, None):
            self._epoll.unregister(descriptor)

    def stop(self) -> None:
        """Stop the thread after the current callback."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            os.eventfd_write(self._wake, 1)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                wait = self._times[0][0] - time.monotonic() if self._times else None
            for descriptor, _ in self._epoll.poll(None if wait is None else max(wait, 0.0)):
                if descriptor == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
                elif call := self._readers.get(descriptor):
                    self._run_guarded(call)
            for timer in self._take_due():
                if call := timer.take():
                    self._run_guarded(call)
        self._epoll.close()
        os.close(self._wake)

    def _run_guarded(self, call: Callable[[], None]) -> None:
        """Run a callback. If it fails, which is a bug, report the error, so that requests fail and do not hang."""
        try:
            call()
        except Exception as error:
            self._on_error(error)

    def _take_due(self) -> list[Timer]:
        timers = []
        now = time.monotonic()
        with self._lock:
            while self._times and self._times[0][0] <= now:
                timers.append(heapq.heappop(self._times)[2])
        return timers

    def _forget(self) -> None:
        """Count a cancelled timer; remove them when half of all timers are cancelled."""
        with self._lock:
            self._cancelled += 1
            if 2 * self._cancelled > len(self._times):
                self._times = [entry for entry in self._times if entry[2].pending]
                heapq.heapify(self._times)
                self._cancelled = 0
