"""Parts shared by pools with threads: the queue of outcomes for the owner, and the handling of failed jobs."""

from __future__ import annotations

import queue
from dataclasses import replace

from ripieno.durations import LONGEST
from ripieno.errors import SearchError
from ripieno.types import Failure, Job, JobResult


class Results:
    """Queue of outcomes: any thread puts them, the pool's owner takes them by `wait`, that of `Pool`."""

    def __init__(self) -> None:
        self._outcomes: queue.SimpleQueue[JobResult | None] = queue.SimpleQueue()
        self._outstanding = 0
        self._message = ""

    def expect(self) -> None:
        """Count a submitted job."""
        self._outstanding += 1

    def put(self, outcome: JobResult) -> None:
        """Add the outcome of a job."""
        self._outcomes.put(outcome)

    def end(self, message: str) -> None:
        """Declare that no more outcomes will arrive: `wait` then raises SearchError with `message`."""
        self._message = message
        self._outcomes.put(None)

    def wait(self, timeout: float | None) -> list[JobResult]:
        """Return the outcomes since the last call; see `Pool.wait`. Raises SearchError after `end`."""
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

    def forget(self) -> None:
        """Discard all outstanding jobs."""
        self._outstanding = 0


def out_of_memory(outcome: JobResult) -> bool:
    """Return True if a job ran out of memory: other processes may have used it, so the job is retried."""
    return outcome.failure is not None and outcome.failure.reason == "memory"


def must_restart_worker(outcome: JobResult) -> bool:
    """Return True if the process must not run another job: it may hold the missing memory, or have lost its GPU.

    After most CUDA errors every later CUDA call of the process fails. An ordinary error in user code does no such harm
    and does not need a new process.
    """
    failed = outcome.failure
    if failed is None:
        return False
    text = failed.message + failed.detail
    return failed.reason == "memory" or any(word in text for word in ("CUDA", "CUDNN", "HIP error"))


def with_slot(outcome: JobResult, slot: int, log: str) -> JobResult:
    """Return `outcome` with its `slot`; a failure without a log gets the slot's `log`."""
    failed = outcome.failure
    return replace(outcome, slot=slot, failure=failed and replace(failed, log=failed.log or log))


def seconds_of(job: Job, limit: float | None) -> float | None:
    """Return the time limit of `job` in seconds, at `limit` seconds per epoch; None: no limit."""
    return None if limit is None else min(limit * (job.stop - job.start), LONGEST)


def timeout_failure(job: Job, limit: float, log: str = "") -> Failure:
    """Return the failure of a job that exceeded its `limit` of seconds per epoch."""
    epochs = job.stop - job.start
    message = f"timed out after {limit * epochs:g} s (limit: {limit:g} s per epoch, epochs: {epochs})"
    return Failure("crash", message, log=log)
