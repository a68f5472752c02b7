"""The harness's runbenchmark.py, which waits for the end of a process whose output has ended.

    PYTHON harness.py FOLDER/runbenchmark.py ARGUMENTS

The harness takes a process for stale when its pipes are closed a moment before it has ended, as RandomForest's are.
"""

from __future__ import annotations

import contextlib
import runpy
import subprocess
import sys
from pathlib import Path

SECONDS = 10.0


class WaitingProcess(subprocess.Popen):  # type: ignore[type-arg]
    """A process that `poll` gives a few seconds to end."""

    def poll(self) -> int | None:
        """Return the exit status, or None when the process runs on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(SECONDS)
        return self.returncode


if __name__ == "__main__":
    subprocess.Popen = WaitingProcess  # type: ignore[misc]
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
