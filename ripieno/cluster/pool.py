"""Protocol of a pool of workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

from ripieno.types import Job, JobResult

Function = Callable[[Job], JobResult]
"""Function that runs a job; it must be importable by name where slots are processes."""


class Pool(Protocol):
    """Slots that run jobs, first in, first out. One thread owns a pool."""

    @property
    def slots(self) -> int:
        """Number of jobs that run at once; on a cluster, the current number."""

    def submit(self, job: Job) -> None:
        """Queue `job`: it starts when those submitted before it have started and a slot is free."""

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        """Return the outcomes of jobs that finished since the last call; block until there is one.

        After `timeout` seconds, or at once when no job is outstanding, the list may be empty. Each job is returned
        exactly once, as a member or as a failure: an exception in the job never reaches the caller.
        """

    def close(self, cancel: bool = False) -> None:
        """Discard the queued jobs and end the slots: after their running job, or at once if `cancel`. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Close the pool; cancel running jobs after an exception."""
        self.close(cancel=kind is not None)
