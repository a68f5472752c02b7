"""Threads for work that would block the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

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
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        if not future.done():  # the caller may have been cancelled
            setter(value)

    def settle_soon(setter: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, setter, value)

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            settle_soon(future.set_exception, error)
        else:
            settle_soon(future.set_result, result)

    threading.Thread(target=run, name="ripieno-reload", daemon=True).start()
    return await future
