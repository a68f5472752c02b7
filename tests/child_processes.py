"""Child processes found by a word of their command line."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil


def find_children(word: str, parent: int | None = None) -> list[psutil.Process]:
    """Return the descendants of a process, of this one by default, whose command line holds `word`.

    Those that end meanwhile, or have ended and wait to be collected, are left out.
    """
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(parent or os.getpid()).children(recursive=True):
            with suppress(psutil.Error):
                if word in " ".join(process.cmdline()):
                    found.append(process)
    return found
