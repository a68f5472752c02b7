"""One thread that waits for everything that happens outside requests: sockets of lanes, and times that come.

Lane processes are started by this thread and by no other, because their parent-death signal is tied to it.
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
    """A callback yet to be run."""

    __slots__ = ("_call", "_cancelled")

    def __init__(self, call: Callable[[], None], cancelled: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call
        self._cancelled = cancelled

    @property
    def pending(self) -> bool:
        """Whether it will still run."""
        return self._call is not None

    def take(self) -> Callable[[], None] | None:
        """The callback, once; None when it was taken or cancelled."""
        call, self._call = self._call, None
        return call

    def cancel(self) -> None:
        """Run it no more; what it refers to is let go at once."""
        if self.take():
            self._cancelled()


class Supervisor:
    """An event loop of callbacks; they must not block. Times are those of `time.monotonic`."""

    def __init__(self, panic: Callable[[Exception], None]) -> None:
        self._panic = panic
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._readers: dict[int, Callable[[], None]] = {}
        self._times: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ripieno-supervisor", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def at(self, when: float, call: Callable[[], None]) -> Timer:
        """Run `call` in the supervisor's thread at `when` or soon after. Any thread may ask."""
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
        """Run `call` in the supervisor's thread."""
        self.at(time.monotonic(), call)

    def wait_for(self, call: Callable[[], object]) -> None:
        """Run `call` in the supervisor's thread, and wait until it has run."""
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
        """Run `call` whenever `descriptor` is readable or closed by its peer. Supervisor's thread only."""
        self._readers[descriptor] = call
        self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching, before the descriptor is closed. Supervisor's thread only."""
        if self._readers.pop(descriptor, None):
            self._epoll.unregister(descriptor)

    def stop(self) -> None:
        """End the thread after the callback it is in."""
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
                    self._guarded(call)
            for timer in self._passed():
                if call := timer.take():
                    self._guarded(call)
        self._epoll.close()
        os.close(self._wake)

    def _guarded(self, call: Callable[[], None]) -> None:
        """A callback that fails is a bug of ours: say so, and let the engine fail its requests rather than hang."""
        try:
            call()
        except Exception as error:
            self._panic(error)

    def _passed(self) -> list[Timer]:
        """Timers whose time has come."""
        timers = []
        now = time.monotonic()
        with self._lock:
            while self._times and self._times[0][0] <= now:
                timers.append(heapq.heappop(self._times)[2])
        return timers

    def _forget(self) -> None:
        """A timer was cancelled; when half of them are, they are swept out."""
        with self._lock:
            self._cancelled += 1
            if 2 * self._cancelled > len(self._times):
                self._times = [entry for entry in self._times if entry[2].pending]
                heapq.heapify(self._times)
                self._cancelled = 0
