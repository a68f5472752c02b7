"""Temporary folders that are removed after their process, even if it was killed.

Each folder is locked while its process lives. Programs that clean `/tmp` (systemd-tmpfiles) skip locked folders. The
folder of a killed process has no lock: the next process removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "ripieno-scratch-"


class Scratch:
    """A new folder at `path`, deleted by `remove`. Raises OSError when it cannot be created."""

    def __init__(self) -> None:
        _remove_stale()
        self._owner = os.getpid()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            try:
                self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:  # another process removed it before it was locked
                continue
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.path.exists():
                return
            os.close(self._lock)

    def remove(self) -> None:
        """Remove the folder, except in a forked child, because it belongs to the parent."""
        if self._owner == os.getpid() and self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _remove_stale() -> None:
    """Remove the folders of this user's processes that have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            if os.fstat(descriptor).st_uid == os.getuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the process lives
                shutil.rmtree(folder, ignore_errors=True)
