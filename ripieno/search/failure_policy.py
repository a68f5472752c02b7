"""What stops a search: a disk that is full or fails, and failures that are not the trials' fault. Decides only."""

from __future__ import annotations

import errno
import os
from collections import Counter

from ripieno.errors import SearchError
from ripieno.types import Failure

EARLY = 20
"""More than half failures among this many first jobs stop the search."""


DISK = {
    errno.ENOSPC: "free the disk",
    errno.EDQUOT: "free the disk",
    errno.EFBIG: "free the disk",
    errno.EROFS: "mount it for writing",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount it again",
}
"""What to do for errors that are the disk's and not a trial's."""


class FailurePolicy:
    """Looks at how jobs ended; `trials` bounds how many trials the search has."""

    def __init__(self, trials: int | None) -> None:
        self._first = min(EARLY, trials or EARLY)
        self._ended = 0
        self._failures: list[Failure] = []
        self.since: int | None = None
        """the event from which on the cause, once mended, would have made a difference; None: nowhere"""

    def check_disk(self, failure: Failure | None) -> None:
        """A disk that is full or fails is not the trial's fault. Raises SearchError: the job is to be run again."""
        message = "" if failure is None else failure.message
        for number, action in DISK.items():
            what, found, _ = message.partition(os.strerror(number))
            if found:
                raise SearchError(f"{what}{found}: {action} and start the search again, it goes on")

    def early(self, failure: Failure | None, event: int) -> str:
        """One more job ended, says the journal's `event`: the likely cause when most of the first ones failed, or "".

        A loss that is no number is the trial's own fault: with the same seed it comes again, whatever was mended.
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
            + ": mend the cause and start the search again, it goes on"
        )
