"""Base of pools with threads: the queue of outcomes for the owner, and the time limits and failures of jobs."""

from __future__ import annotations

import queue
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ripieno import clock, files
from ripieno.cluster.pool import Function, Pool
from ripieno.cluster.retries import JobProgress
from ripieno.durations import LONGEST, check_duration
from ripieno.errors import SearchError
from ripieno.types import Failure, Job, JobResult


class ThreadedPool(Pool):
    """Pool whose threads put outcomes, which the owner takes by `wait`. For the arguments see `LocalPool`."""

    def __init__(self, function: Function, logs: Path | None, limit: float | None, progress: JobProgress) -> None:
        if limit is not None:
            check_duration(limit, "limit", error=SearchError)
        check_importable(function)
        if logs is not None:
            files.make_folder(logs)
        self._logs, self._limit, self._progress = logs, limit, progress
        self._outcomes: queue.SimpleQueue[JobResult | None] = queue.SimpleQueue()
        self._outstanding = 0
        self._message = ""

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        """Return the outcomes since the last call; see `Pool.wait`. Raises SearchError when no more jobs can finish."""
        outcomes: list[JobResult] = []
        try:
            while len(outcomes) < self._outstanding:
                outcome = self._outcomes.get_nowait() if outcomes else self._outcomes.get(timeout=timeout)
                if outcome is None:
                    self._outcomes.put(None)  # for the next call
                    if not outcomes:
                        raise SearchError(self._message)
                    break
                outcomes.append(outcome)
        except queue.Empty:
            pass
        self._outstanding -= len(outcomes)
        return outcomes

    def _end(self, message: str) -> None:
        """Declare that no more outcomes will arrive: `wait` then raises SearchError with `message`."""
        self._message = message
        self._outcomes.put(None)

    def _seconds(self, job: Job) -> float | None:
        """Return the time limit of `job` in seconds; None: no limit."""
        return None if self._limit is None else min(self._limit * (job.stop - job.start), LONGEST)

    def _timeout(self, job: Job, log: str) -> Failure:
        """Return the failure of a job that exceeded its limit."""
        epochs, limit, unit = job.stop - job.start, self._limit or 0.0, job.unit
        message = (
            f"timed out after {limit * epochs:g} s (limit: {limit:g} s per {unit.removesuffix('s')}, {unit}: {epochs})"
        )
        return Failure("crash", message, log=log)


def failed(job: Job, failure: Failure, slot: int, started: float) -> JobResult:
    """Return the outcome of a job that started at `started` and failed now."""
    return JobResult(job, failure=failure, slot=slot, started=started, finished=clock.now())


def with_slot(outcome: JobResult, slot: int, log: str) -> JobResult:
    """Return `outcome` with its `slot`; a failure without a log gets the slot's `log`."""
    failed = outcome.failure
    return replace(outcome, slot=slot, failure=failed and replace(failed, log=failed.log or log))


def check_importable(function: Function) -> None:
    """Raise SearchError if workers cannot import `function`, instead of a traceback in the worker later."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    module, name = getattr(inner, "__module__", None), getattr(inner, "__qualname__", "")
    if module is None or module == "__main__" or "<" in name:
        raise SearchError(
            f"worker processes cannot import {name or inner!r} of {module or 'no module'}: "
            "it must be a function at the top of a module that can be imported"
        )
