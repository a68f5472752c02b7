"""Policy that stops a search: on a full or failing disk, and on early failures that are not the trials' fault."""

from __future__ import annotations

import errno
import os
from collections import Counter

from ripieno.errors import SearchError
from ripieno.types import Failure

EARLY = 20
"""Number of first jobs; if more than half of them fail, the search stops."""
DISK = {
    errno.ENOSPC: "free the disk",
    errno.EDQUOT: "free the disk",
    errno.EFBIG: "free the disk",
    errno.EROFS: "mount it for writing",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount it again",
}
"""Remedy by errno, for errors of the disk and not of a trial."""


class FailurePolicy:
    """Policy over the outcomes of jobs; `trials` is the maximum number of trials of the search, None for no limit."""

    def __init__(self, trials: int | None) -> None:
        self._first = min(EARLY, trials or EARLY)
        self._ended = 0
        self._failures: list[Failure] = []
        self.since: int | None = None
        """number of the first event that a fix of the cause would have changed; None: no such event"""

    def check_disk(self, failure: Failure | None) -> None:
        """Raise SearchError if the disk is full or fails: that is not the trial's fault, and the job must run again."""
        message = "" if failure is None else failure.message
        for number, action in DISK.items():
            head, reason, _ = message.partition(os.strerror(number))
            if reason:
                raise SearchError(f"{head}{reason}: {action} and start the search again to resume it")

    def early(self, failure: Failure | None, event: int) -> str:
        """Record the job that ended with the journal's `event`; return the likely cause if most first jobs failed.

        Returns "" otherwise. A loss that is not a number is the trial's own fault: with the same seed it occurs again,
        whatever was fixed.
        """
        self._ended += 1
        if self._ended > self._first or failure is None:
            return ""
        self._failures.append(failure)
        if self.since is None and failure.reason != "diverged":
            self.since = event
        if 2 * len(self._failures) <= self._first:
            return ""
        often, times = Counter(f.message for f in self._failures).most_common(1)[0]
        log = next((f.log for f in self._failures if f.message == often and f.log), "")
        return (
            f"{len(self._failures)} of the first {self._ended} jobs failed, {times} of them with: {often}"
            + (f" (see {log})" if log else "")
            + ": fix the cause and start the search again to resume it"
        )
