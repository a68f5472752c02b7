"""A watchdog over the event loop: how late it comes to what is due.

Everything waits while one callback runs, probes too, so that nothing may take long there. A timer that is due every
`BEAT` seconds is late by as long as the loop was held at that time: whatever holds it for more than `BEAT` is seen.
"""

from __future__ import annotations

import asyncio
import logging
import time

from ripieno.server.tally import Histogram

log = logging.getLogger("ripieno.server")

BEAT = 0.01
"""Seconds between two looks; one takes about ten microseconds."""
HELD = 0.02
"""Seconds that nothing may hold the loop."""
QUIET = 1.0
"""Seconds between two lines in the log, at least."""


class LoopLag:
    """How late the loop's timer came; times in seconds."""

    def __init__(self) -> None:
        self.seconds = Histogram((0.001, 0.002, 0.005, 0.01, HELD, 0.05, 0.1, 0.25, 0.5, 1.0))
        self.longest = 0.0

    def add(self, late: float) -> None:
        """Count one look."""
        self.seconds.add(late)
        self.longest = max(self.longest, late)

    async def watch(self) -> None:
        """Look on until cancelled; says in the log when the loop was held for longer than `HELD`."""
        said = -QUIET
        while True:
            due = time.perf_counter() + BEAT
            await asyncio.sleep(BEAT)
            now = time.perf_counter()
            late = max(0.0, now - due)
            self.add(late)
            if late > HELD and now - said >= QUIET:
                said = now
                log.info("The event loop was held for %.0f ms.", 1000 * late)
