"""What stops a search: a full disk, and failures that are not the trials' fault. Decides only."""

from __future__ import annotations

import errno
import os
from collections import Counter

from ripieno.errors import SearchError
from ripieno.types import Failure

EARLY = 20
"""More than half failures among this many first jobs stop the search."""


class Trouble:
    """Looks at how jobs ended; `trials` bounds how many trials the search has."""

    def __init__(self, trials: int | None) -> None:
        self._first = min(EARLY, trials or EARLY)
        self._ended = 0
        self._failures: list[Failure] = []

    def check_disk(self, failure: Failure | None) -> None:
        """A full disk is not the trial's fault. Raises SearchError: the job is to be run again."""
        message = "" if failure is None else failure.message
        for full in map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
            what, found, _ = message.partition(full)
            if found:
                raise SearchError(f"{what}{full}: free the disk and start the search again, it goes on")

    def check_early(self, failure: Failure | None) -> None:
        """One more job ended. Raises SearchError with the likely cause when most of the first ones failed."""
        self._ended += 1
        if self._ended > self._first or failure is None:
            return
        self._failures.append(failure)
        if 2 * len(self._failures) <= self._first:
            return
        often, times = Counter(f.message for f in self._failures).most_common(1)[0]
        log = next((f.log for f in self._failures if f.message == often and f.log), "")
        raise SearchError(
            f"{len(self._failures)} of the first {self._ended} jobs failed, {times} of them with: {often}"
            + (f" (see {log})" if log else "")
            + ": mend the cause and start the search again, it goes on"
        )
