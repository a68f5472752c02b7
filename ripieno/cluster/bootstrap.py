"""Initialisation of a worker process.

Imports neither NumPy, PyTorch nor CUDA: they read the environment as they load, so it must be set before.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping

from ripieno import clock

CHECK_SECONDS = 0.5
"""Interval at which a worker checks that its parent lives."""


def bootstrap(environment: Mapping[str, str], parent: int, log: str, origin: float) -> None:
    """Set environment and clock, append output to `log` (if not empty), leave Ctrl-C to `parent` and exit with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.update(environment)
    clock.follow(origin)
    if log:
        write_to(log)
    faulthandler.enable()
    threading.Thread(target=_die_with, args=(parent,), name="watch-parent", daemon=True).start()


def write_to(log: str) -> None:
    """Append standard output and error, also of C libraries, to the file `log`, if it can be opened."""
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # a full disk is reported when a job writes
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _die_with(parent: int) -> None:
    """End this process at once when `parent` has died: there is no process left to receive its results."""
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
    os._exit(1)
