"""Progress of a running trial within its epoch: a small file that its worker overwrites about once a second.

Theory of operation. Workers are processes on this machine or on another, and what they share with the search is the
run's folder. After a batch a worker looks at the clock, and if a second has passed it replaces the file by a new one,
without waiting for the disk. The view of a search reads the files of the trials that it shows. No decision of a search
depends on them: a failed write is ignored, and a file that cannot be read is no progress.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ripieno import files
from ripieno.errors import RipienoError
from ripieno.types import Job

INTERVAL = 1.0
"""Least seconds between two writes of a trial."""


@dataclass(frozen=True)
class TrialProgress:
    """Position of a trial in its training."""

    epoch: int
    """that is being trained, from 1"""
    batch: int = 0
    """number of batches of the epoch that are done"""
    batches: int = 0
    """of the epoch; 0: the trainer reports none"""

    @property
    def epochs(self) -> float:
        """Number of epochs done, with the part of the current one."""
        return self.epoch - 1 + (self.batch / self.batches if self.batches else 0.0)


class ProgressWriter:
    """Writer of the progress of one job to `path`; `clock` returns seconds."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._epoch = 1
        self._due = clock()

    def start_epoch(self, epoch: int) -> None:
        """Report that `epoch` begins."""
        self._epoch = epoch
        self.batch(0, 0)

    def batch(self, done: int, total: int) -> None:
        """Report that `done` of `total` batches of the epoch are trained."""
        if (now := self._clock()) < self._due:
            return
        self._due = now + INTERVAL
        files.write_status(self._path, files.to_json(TrialProgress(self._epoch, done, total)))

    def close(self) -> None:
        """Remove the file: the job has ended."""
        with suppress(RipienoError):
            files.remove_file(self._path)


def read_progress(path: Path, job: Job) -> TrialProgress | None:
    """Return the progress of `job`; None where none is known, or where the file is an earlier job's."""
    try:
        found = files.read_json(path, TrialProgress) if path.exists() else None
    except RipienoError:  # it is being replaced, or of another version
        return None
    return found if found is not None and job.start < found.epoch <= job.stop else None
