"""The line in front of an engine: whoever finds its ring full waits in turn, without holding up the event loop."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import EngineBusyError, EngineError, EngineTimeoutError
from ripieno.server.refusal import RefusedError, late, without_paths
from ripieno.server.traces import steps
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.engine.answer import Answer, Stats
    from ripieno.engine.trace import Step


class Asked(Protocol):
    """What the server needs of an engine; `ripieno.engine.Engine` is one."""

    bundle: Bundle

    def submit(
        self,
        images: NDArray[np.generic],
        members: Sequence[str] | None = None,
        *,
        spread: bool = False,
        each: bool = False,
        timeout: float | None = None,
        deadline: float | None = None,
        partial: bool = False,
        steps: list[Step] | None = None,
    ) -> Future[Answer]:
        """The answer of the ensemble, or of `members`; `timeout` seconds to wait for room, 0 for not at all.

        `steps`, which is given only where a trace is kept, takes what each member did.
        """
        ...

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        ...

    def stats(self) -> Stats:
        """What it did since its start."""
        ...

    def close(self) -> None:
        """Answer what is under way, then free everything."""
        ...


class Line:
    """Requests to one engine, first come, first served; belongs to one event loop."""

    def __init__(self, engine: Asked) -> None:
        self.engine = engine
        self.waiting = 0
        """requests that found the engine full"""
        self.users = 0
        """requests under way, from the reading of their bodies on"""
        self._turn = asyncio.Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ripieno-line")

    async def ask(
        self,
        images: NDArray[np.generic],
        members: Sequence[str] | None,
        timeout: float,
        *,
        spread: bool = False,
        each: bool = False,
        partial: bool = False,
    ) -> Answer:
        """The answer, within `timeout` seconds; with `partial`, that of the members which finished by then.

        Raises RefusedError: 504 when it is late or found no room in time, 500 when the engine failed.
        """
        until = time.monotonic() + timeout
        submit = functools.partial(self.engine.submit, images, members, spread=spread, each=each, partial=partial)
        if (taken := steps.get()) is not None:
            submit = functools.partial(submit, steps=taken)

        def wait_for_room() -> Future[Answer]:
            left = max(0.001, until - time.monotonic())  # what was waited in line is gone
            return submit(timeout=left, deadline=left if partial else None)

        try:
            # an early answer needs the engine's own deadline; the wait here is then only a backstop
            async with asyncio.timeout(timeout + (1.0 if partial else 0.0)):
                if not self.waiting:
                    try:
                        return await asyncio.wrap_future(submit(timeout=0.0, deadline=timeout if partial else None))
                    except EngineBusyError:
                        pass
                self.waiting += 1
                try:
                    async with self._turn:
                        future = await self._in_thread(wait_for_room)
                finally:
                    self.waiting -= 1
                return await asyncio.wrap_future(future)
        except (TimeoutError, EngineTimeoutError, EngineBusyError):
            raise late(timeout) from None
        except EngineError as error:
            raise RefusedError(500, without_paths(str(error), self.engine.bundle.path)) from error

    async def _in_thread(self, submit: Callable[[], Future[Answer]]) -> Future[Answer]:
        """Submit in the one writing thread; a caller that gives up takes its request back."""
        writing = asyncio.get_running_loop().run_in_executor(self._writer, submit)
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            writing.add_done_callback(_take_back)
            raise

    def close(self) -> None:
        """Let go of the thread; the engine is closed by whoever opened it."""
        self._writer.shutdown(wait=False, cancel_futures=True)


def _take_back(writing: asyncio.Future[Future[Answer]]) -> None:
    if not writing.cancelled() and writing.exception() is None:
        writing.result().cancel()
