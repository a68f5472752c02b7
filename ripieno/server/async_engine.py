"""The way to an engine from the event loop: asked within a time, given up with its caller."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import EngineBusyError, EngineError, EngineTimeoutError
from ripieno.server.http_errors import HttpError, timeout_error, without_paths
from ripieno.server.tracing import steps
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer, InferenceStep, Stats


class EngineProtocol(Protocol):
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
        steps: list[InferenceStep] | None = None,
        block: bool = True,
    ) -> Future[Answer]:
        """The answer of the ensemble, or of `members`; `timeout` seconds to wait for room, 0 for not at all.

        `steps`, which is given only where a trace is kept, takes what each member did. Without `block` the call returns
        at once, and the request waits for room by itself until it is cancelled.
        """
        ...

    @property
    def waiting(self) -> int:
        """Requests that wait for room."""
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


class AsyncEngine:
    """Requests to one engine; belongs to one event loop."""

    def __init__(self, engine: EngineProtocol) -> None:
        self.engine = engine
        self.users = 0
        """requests under way, from the reading of their bodies on"""

    async def infer(
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

        A caller that is cancelled takes its request back. Raises RefusedError: 504 when it is late or found no room in
        time, 500 when the engine failed.
        """
        submit = functools.partial(self.engine.submit, images, members, spread=spread, each=each, block=False)
        if (taken := steps.get()) is not None:
            submit = functools.partial(submit, steps=taken)
        if partial:
            submit = functools.partial(submit, partial=True, deadline=timeout)
        try:
            # an early answer needs the engine's own deadline; the wait here is then only a backstop
            async with asyncio.timeout(timeout + (1.0 if partial else 0.0)):
                return await asyncio.wrap_future(submit())
        except (TimeoutError, EngineTimeoutError, EngineBusyError):
            raise timeout_error(timeout) from None
        except EngineError as error:
            raise HttpError(500, without_paths(str(error), self.engine.bundle.path)) from error
