"""Retry policy for jobs that lost their worker process: several deaths in a row without a new epoch are a failure.

Workers killed from outside must not change what the search decides. So three kinds of deaths do not count against a
job: those before its last progress, those on a node that has left since, and those of a worker that had not started
the job.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from ripieno.types import Job

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
