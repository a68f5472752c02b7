"""What a search asks of a pool of workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

from ripieno.types import Job, JobResult

Function = Callable[[Job], JobResult]
"""What a slot does with a job; importable by name where slots are processes."""


class Pool(Protocol):
    """Slots that run jobs, first come first served. One thread owns a pool."""

    @property
    def slots(self) -> int:
        """How many jobs run at once; of a cluster, now."""
        ...

    def submit(self, job: Job) -> None:
        """Queue `job`: it starts when those submitted before it have started and a slot is free."""
        ...

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        """Outcomes of jobs that finished since the last call; blocks until there is one.

        After `timeout` seconds, or at once when nothing is outstanding, the list may be empty. Each job submitted comes
        back exactly once, as a member or as a failure: what the job raises never reaches the caller.
        """
        ...

    def close(self, cancel: bool = False) -> None:
        """Forget the queued jobs and end the slots: after their running job, or at once when `cancel`. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Close, cancelling when leaving by an exception."""
        ...
