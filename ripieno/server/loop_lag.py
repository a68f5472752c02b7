"""Monitor of the event loop's lag.

While one callback runs, everything else waits, probes included, so callbacks must be short. A timer that is due every
`BEAT` seconds is late by the time for which the loop was blocked: every block longer than `BEAT` is detected.
"""

from __future__ import annotations

import asyncio
import logging
import time

from ripieno.server.served_model_stats import Histogram

log = logging.getLogger("ripieno.server")

BEAT = 0.01
"""Seconds between two measurements; a hundred per second take about a hundredth of a core."""
HELD = 0.02
"""Seconds for which a callback may block the loop at most."""
QUIET = 1.0
"""Minimum seconds between two log lines."""


class LoopLag:
    """Lag of the loop's timer; times in seconds."""

    def __init__(self) -> None:
        self.seconds = Histogram((0.001, 0.002, 0.005, 0.01, HELD, 0.05, 0.1, 0.25, 0.5, 1.0))
        self.longest = 0.0
        self._due, self._last_logged = 0.0, -QUIET
        self._next: asyncio.TimerHandle | None = None

    def add(self, late: float) -> None:
        """Count one measurement."""
        self.seconds.add(late)
        self.longest = max(self.longest, late)

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
        self.add(late)
        if late > HELD and now - self._last_logged >= QUIET:
            self._last_logged = now
            log.info("event loop blocked for %.0f ms", 1000 * late)
        self._beat()
