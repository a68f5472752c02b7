"""Work that would hold up the event loop, done in a thread beside it."""

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
"""Bytes that are read or written within the loop itself: some milliseconds of work at most."""


WORKER = ThreadPoolExecutor(1, thread_name_prefix="ripieno-codec")
"""One at a time, whoever asks: each may take some times the memory of what it reads or writes, and two would only pass
the interpreter's lock to and fro."""


async def run_in_worker(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread when its work is about `size` bytes and that is long, else here and now.

    The function must give way itself: work in C that keeps the interpreter's lock holds up the loop from any thread.
    """
    if size <= AT_ONCE:
        return function(*args, **kwargs)
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(WORKER, call)


async def in_daemon_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread of its own, for which the end of the process does not wait."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(say: Callable[[Any], None], value: Any) -> None:
        if not future.done():  # who waited may have given up
            say(value)

    def tell(say: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, say, value)

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            tell(future.set_exception, error)
        else:
            tell(future.set_result, result)

    threading.Thread(target=run, name="ripieno-exchange", daemon=True).start()
    return await future
