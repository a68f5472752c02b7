"""Whose fault it is that a worker died: a job that has killed several in a row, without an epoch between, is a failure.

A job whose workers are killed from outside gets on all the same, and nothing of that may show in what the search
decides: so what it did before its last progress does not count, nor does what happened on a machine that is gone, nor
the death of a worker that had not come as far as the job.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from ripieno.types import Job

RETRIES = 2
"""How often a job that killed its worker is run again before it is a failure."""
STARTS = 5
"""How many workers in a row may die before they come as far as the job; on a cluster, on each of its nodes."""

Progress = Callable[[Job], object]
"""Of a job: what changes whenever it gets on, as with every epoch. Asked in the process that owns the pool."""


def no_progress(job: Job) -> None:
    """The progress of jobs that leave no trace of it."""


class RetryPolicy:
    """Where the workers of one job have died since it last got on."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self._job = job
        self._progress = progress
        self._mark = progress(job)
        self._places: list[str] = []
        self._unborn = 0

    def __len__(self) -> int:
        return self._unborn or len(self._places)

    def starting(self) -> bool:
        """One more died while it started; whether to start another."""
        self._unborn += 1
        return self._unborn <= STARTS

    def should_retry(self, place: str = "", living: Container[str] = ("",)) -> bool:
        """One more died, at `place`; whether to run the job again. Only what happened at `living` places counts."""
        self._unborn = 0
        mark = self._progress(self._job)
        before = self._places if mark == self._mark else []
        self._mark = mark
        self._places = [p for p in (*before, place) if p in living]
        return len(self._places) <= RETRIES
