"""Memory maintenance of a server: freed memory returns to the system, long-lived objects skip garbage collection."""

from __future__ import annotations

import asyncio
import gc

from ripieno.resources import trim_heap

EVERY = 30.0
"""Seconds between trims; one takes 10 ms when it returns 100 MB, and hardly any time when little is free."""


def freeze() -> None:
    """Exclude all current objects from later garbage collections, which would block the event loop for 50 ms each.

    Only for a dedicated server process: cycles among the current objects are never freed.
    """
    gc.collect()
    gc.freeze()


async def trim_periodically() -> None:
    """Trim the heap every `EVERY` seconds until cancelled, in a thread outside the event loop.

    A server that runs for weeks then uses what it needs, not its past maximum.
    """
    while await asyncio.to_thread(trim_heap):
        await asyncio.sleep(EVERY)
