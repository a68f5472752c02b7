"""Work that would hold up the event loop, done in a thread beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 1 << 17
"""Bytes that are read or written within the loop itself: some milliseconds of work at most."""


async def beside(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread when its work is about `size` bytes and that is long, else here and now.

    The function must give way itself: work in C that keeps the interpreter's lock holds up the loop from any thread.
    """
    if size <= AT_ONCE:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
