"""Callbacks that other threads schedule in the event loop, in batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

log = logging.getLogger("ripieno.server")


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
