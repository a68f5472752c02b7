"""The command line in a real terminal, as a person sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(
    words: list[str],
    cwd: Path,
    interrupt: Callable[[str], bool] = lambda _: False,
    size: tuple[int, int] = (24, 80),
    **environment: str,
) -> tuple[int, str]:
    """Exit code and all that was drawn on `size` (rows, columns); Ctrl-C is pressed once `interrupt` says so."""
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - becomes another program
        os.chdir(cwd)
        # by the child itself: it may start before its parent goes on
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        # workers of pytest-xdist have a size of their own, which would count instead
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        settings = {**inherited, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        os.execve(sys.executable, [sys.executable, "-m", "ripieno", *words], settings)
    seen, pressed, until = b"", False, time.monotonic() + 120
    try:
        while time.monotonic() < until:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    seen += os.read(terminal, 65536)
                except OSError:  # the other end is closed
                    break
            if not pressed and interrupt(seen.decode(errors="replace")):
                os.write(terminal, b"\x03")
                pressed = True
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode(errors="replace")
    finally:
        os.close(terminal)
