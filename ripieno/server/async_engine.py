"""Asynchronous interface of an engine for the event loop: requests have a timeout and end with their caller."""

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
    """Interface of an engine that the server needs; `ripieno.engine.Engine` implements it."""

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
        """Submit a request to the ensemble, or to `members`; wait for room for at most `timeout` seconds.

        `steps` is passed only when a trace is kept; the steps of each member are appended to it. Without `block` the
        call returns at once, and the request waits for room until it is cancelled.
        """
        ...

    @property
    def waiting(self) -> int:
        """Number of requests that wait for room."""
        ...

    @property
    def ready(self) -> bool:
        """True while the engine serves requests."""
        ...

    def stats(self) -> Stats:
        """Return the engine's counts since its start."""
        ...

    def close(self) -> None:
        """Finish in-flight requests, then free everything."""
        ...


class AsyncEngine:
    """Asynchronous requests to one engine, from one event loop."""

    def __init__(self, engine: EngineProtocol) -> None:
        self.engine = engine
        self.users = 0
        """requests in flight, counted from before their bodies are read"""

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
        """Return the answer within `timeout` seconds; with `partial`, of the members that have finished by then.

        Cancelling the caller cancels the request. Raises HttpError: 504 when the timeout expires, also while waiting
        for room; 500 when the engine fails.
        """
        submit = functools.partial(self.engine.submit, images, members, spread=spread, each=each, block=False)
        if (collected := steps.get()) is not None:
            submit = functools.partial(submit, steps=collected)
        if partial:
            submit = functools.partial(submit, partial=True, deadline=timeout)
        try:
            # a partial answer needs the engine's own deadline; this timeout is then only a backstop
            async with asyncio.timeout(timeout + (1.0 if partial else 0.0)):
                return await asyncio.wrap_future(submit())
        except (TimeoutError, EngineTimeoutError, EngineBusyError):
            raise timeout_error(timeout) from None
        except EngineError as error:
            raise HttpError(500, without_paths(str(error), self.engine.bundle.path)) from error
