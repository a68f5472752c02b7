"""A watchdog over the event loop: how late it comes to what is due.

Everything waits while one callback runs, probes too, so that nothing may take long there. A timer that is due every
`BEAT` seconds is late by as long as the loop was held at that time: whatever holds it for more than `BEAT` is seen.
"""

from __future__ import annotations

import asyncio
import logging
import time

from ripieno.server.served_model_stats import Histogram

log = logging.getLogger("ripieno.server")

BEAT = 0.01
"""Seconds between two looks; a hundred a second take about a hundredth of a core."""
HELD = 0.02
"""Seconds that nothing may hold the loop."""
QUIET = 1.0
"""Seconds between two lines in the log, at least."""


class LoopLag:
    """How late the loop's timer came; times in seconds."""

    def __init__(self) -> None:
        self.seconds = Histogram((0.001, 0.002, 0.005, 0.01, HELD, 0.05, 0.1, 0.25, 0.5, 1.0))
        self.longest = 0.0
        self._due, self._said = 0.0, -QUIET
        self._next: asyncio.TimerHandle | None = None

    def add(self, late: float) -> None:
        """Count one look."""
        self.seconds.add(late)
        self.longest = max(self.longest, late)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look on until `stop`; says in the log when the loop was held for longer than `HELD`."""
        self._loop = loop
        self._beat()

    def stop(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()

    def _beat(self) -> None:
        self._due = time.perf_counter() + BEAT
        self._next = self._loop.call_later(BEAT, self._look)

    def _look(self) -> None:
        now = time.perf_counter()
        late = max(0.0, now - self._due)
        self.add(late)
        if late > HELD and now - self._said >= QUIET:
            self._said = now
            log.info("The event loop was held for %.0f ms.", 1000 * late)
        self._beat()
