"""The heap of a server: what was freed goes back to the system, what stays is left out of garbage collections.

glibc's heap keeps what a burst of requests once took, for whatever is still in use lies at its end. Released now and
then, a server that runs for weeks takes what it needs, not the most it ever needed at one moment.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

EVERY = 30.0
"""Seconds between releases; one takes 10 ms where it gives 100 MB back, and hardly any time where little is free."""


def trim() -> bool:
    """Give free pages of the heap back; whether the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is None:
        return False
    trim(0)
    return True


def freeze() -> None:
    """Leave what the process holds now out of later garbage collections: each would hold up the event loop for 50 ms.

    For a process that does nothing but serve: cycles among what it holds now are never freed.
    """
    gc.collect()
    gc.freeze()


async def trim_periodically() -> None:
    """Do so until cancelled, beside the event loop."""
    while await asyncio.to_thread(trim):
        await asyncio.sleep(EVERY)
