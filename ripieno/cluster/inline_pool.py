"""Pool without workers: jobs run one by one in the caller's process, during `wait`."""

from __future__ import annotations

from collections import deque

from ripieno.cluster.job_runner import run_job
from ripieno.cluster.pool import Function, Pool
from ripieno.cluster.retries import RetryPolicy, no_progress, out_of_memory
from ripieno.types import Job, JobResult


class InlinePool(Pool):
    """Pool with the caller as its one slot: `wait` runs the oldest job to its end and ignores its timeout."""

    slots = 1

    def __init__(self, function: Function) -> None:
        self._function = function
        self._queue: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Queue `job`."""
        self._queue.append(job)

    def wait(self, timeout: float | None = None) -> list[JobResult]:  # noqa: ARG002
        """Run the oldest job and return its outcome; return an empty list if there is none."""
        if not self._queue:
            return []
        job = self._queue.popleft()
        outcome, retries = run_job(self._function, job), RetryPolicy(job, no_progress)
        while out_of_memory(outcome) and retries.should_retry():
            outcome = run_job(self._function, job)
        return [outcome]

    def close(self, cancel: bool = False) -> None:  # noqa: ARG002
        """Discard the queued jobs."""
        self._queue.clear()
