"""Retry policy for jobs that lost their worker process: several deaths in a row without a new epoch are a failure.

Workers killed from outside must not change what the search decides. So three kinds of deaths do not count against a
job: those before its last progress, those on a node that has left since, and those of a worker that had not started
the job.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from ripieno.types import Job, JobResult

RETRIES = 2
"""Number of retries of a job that killed its worker before it is a failure."""
STARTS = 5
"""Number of workers in a row that may die before they start the job; on a cluster, on each of its nodes."""
JobProgress = Callable[[Job], object]
"""Function of a job with a value that changes with its progress, as after every epoch; runs in the pool owner."""


def no_progress(job: Job) -> None:
    """Return None: the progress of jobs that record none."""


class RetryPolicy:
    """Retry policy of one job: counts the deaths of its workers since its last progress."""

    def __init__(self, job: Job, progress: JobProgress) -> None:
        self._job = job
        self._progress = progress
        self._mark = progress(job)
        self._nodes: list[str] = []
        self._failed_starts = 0

    def __len__(self) -> int:
        return self._failed_starts or len(self._nodes)

    def starting(self) -> bool:
        """Count a worker that died while it started; return True if another may be started."""
        self._failed_starts += 1
        return self._failed_starts <= STARTS

    def should_retry(self, node: str = "", living: Container[str] = ("",)) -> bool:
        """Count a death on `node`; return True if the job may run again. Only deaths on `living` nodes count."""
        self._failed_starts = 0
        mark = self._progress(self._job)
        before = self._nodes if mark == self._mark else []
        self._mark = mark
        self._nodes = [n for n in (*before, node) if n in living]
        return len(self._nodes) <= RETRIES


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
