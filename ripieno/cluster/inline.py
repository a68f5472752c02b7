"""A pool without workers: jobs run in the caller's process, one by one, while it waits."""

from __future__ import annotations

from collections import deque
from typing import Self

from ripieno.cluster.deaths import Deaths, unseen
from ripieno.cluster.pool import Function
from ripieno.cluster.results import starved
from ripieno.cluster.worker import perform
from ripieno.types import Job, Outcome


class InlinePool:
    """One slot, and it is the caller: `wait` runs the oldest job to its end, whatever its timeout."""

    slots = 1

    def __init__(self, function: Function) -> None:
        self._function = function
        self._queue: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Queue `job`."""
        self._queue.append(job)

    def wait(self, timeout: float | None = None) -> list[Outcome]:  # noqa: ARG002
        """Run the oldest job; empty when there is none."""
        return [self._run(self._queue.popleft())] if self._queue else []

    def _run(self, job: Job) -> Outcome:
        outcome, deaths = perform(self._function, job), Deaths(job, unseen)
        while starved(outcome) and deaths.again():
            outcome = perform(self._function, job)
        return outcome

    def close(self, cancel: bool = False) -> None:  # noqa: ARG002
        """Forget the queued jobs."""
        self._queue.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close()
