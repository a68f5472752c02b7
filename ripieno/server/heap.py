"""Heap maintenance of a server: freed memory returns to the system, long-lived objects skip garbage collection.

glibc's heap keeps the memory of a burst of requests, because live objects remain at its end. With periodic trimming, a
server that runs for weeks uses what it needs, not its past maximum.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

EVERY = 30.0
"""Seconds between trims; one takes 10 ms when it returns 100 MB, and hardly any time when little is free."""


def trim() -> bool:
    """Return free pages of the heap to the system; return whether the C library supports it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only in glibc
    if trim is None:
        return False
    trim(0)
    return True


def freeze() -> None:
    """Exclude all current objects from later garbage collections, which would block the event loop for 50 ms each.

    Only for a dedicated server process: cycles among the current objects are never freed.
    """
    gc.collect()
    gc.freeze()


async def trim_periodically() -> None:
    """Trim every `EVERY` seconds until cancelled, in a thread outside the event loop."""
    while await asyncio.to_thread(trim):
        await asyncio.sleep(EVERY)
