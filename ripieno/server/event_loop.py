"""Measures that keep the event loop responsive: while one callback runs, everything else waits, probes included.

Long work goes to threads, callbacks from threads are run in batches, and the lag of the loop is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ripieno.server.served_model_stats import Histogram

log = logging.getLogger("ripieno.server")
P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 1 << 17
"""Bytes that are encoded or decoded in the loop itself: some milliseconds of work at most."""
WORKER = ThreadPoolExecutor(1, thread_name_prefix="ripieno-codec")
"""One call at a time in total: each may need a multiple of the memory of its data, and two would only contend for the
interpreter's lock."""


async def run_in_worker(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread if its data has more than `AT_ONCE` of about `size` bytes, otherwise directly.

    The function itself must release the interpreter's lock: C code that keeps it blocks the loop from any thread.
    """
    if size <= AT_ONCE:
        return function(*args, **kwargs)
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(WORKER, call)


async def in_daemon_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a separate thread, for which the end of the process does not wait."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # the caller may be cancelled, the call continues

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="ripieno-reload", daemon=True).start()
    return await asyncio.wrap_future(future)


class CallbackBatcher:
    """Queue of callbacks for the event loop: one wake-up of the loop runs all that arrive at about the same time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pending: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def put(self, callback: Callable[[], None]) -> None:
        """Schedule `callback` in the loop; thread-safe."""
        self._pending.append(callback)
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and no client waits any more
                self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._scheduled = False  # first: a callback that arrives from here on runs below or schedules another run
        while self._pending:
            try:
                self._pending.popleft()()
            except Exception:  # one failure must not stop the callbacks after it
                log.exception("unhandled exception in a callback")


BEAT = 0.01
"""Seconds between two measurements; a hundred per second take about a hundredth of a core."""
HELD = 0.02
"""Seconds for which a callback may block the loop at most."""
QUIET = 1.0
"""Minimum seconds between two log lines."""


class LoopLag:
    """Lag of the loop's timer; times in seconds.

    A timer that is due every `BEAT` seconds is late by the time for which the loop was blocked: every block longer than
    `BEAT` is detected.
    """

    def __init__(self) -> None:
        self.seconds = Histogram((0.001, 0.002, 0.005, 0.01, HELD, 0.05, 0.1, 0.25, 0.5, 1.0))
        self.longest = 0.0
        self._due, self._last_logged = 0.0, -QUIET
        self._next: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Measure until `stop`; log when the loop was blocked for longer than `HELD`."""
        self._loop = loop
        self._beat()

    def stop(self) -> None:
        """Stop measuring."""
        if self._next is not None:
            self._next.cancel()

    def _beat(self) -> None:
        self._due = time.perf_counter() + BEAT
        self._next = self._loop.call_later(BEAT, self._measure)

    def _measure(self) -> None:
        now = time.perf_counter()
        late = max(0.0, now - self._due)
        self.seconds.add(late)
        self.longest = max(self.longest, late)
        if late > HELD and now - self._last_logged >= QUIET:
            self._last_logged = now
            log.info("event loop blocked for %.0f ms", 1000 * late)
        self._beat()
