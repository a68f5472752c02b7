"""One run of an external command: bounded in time, killed with its children, without a shell."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from ripieno.errors import SearchError, system_error
from ripieno.types import Value

PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.-]*)\}")
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
SOLVED = (0, 10, 20)
"""Exit codes of a solved instance: success, and those of SAT solvers for satisfiable and unsatisfiable."""
GRACE = 1.0
"""Seconds between the request to end and the kill."""
OUTPUT_BYTES = 1 << 20
"""Bytes at the end of an output in which the last number is looked for."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class CommandRun:
    """Result of one run."""

    seconds: float
    """wall-clock time, at most the cutoff"""
    code: int | None
    """exit code; None: killed at the cutoff"""
    number: float | None
    """last number on its standard output; None: there is none"""
    last_line: str
    """last line of its output, or of its errors, for messages"""
    left: int
    """number of processes that it left, which were killed"""


def parse_command(text: str, names: Collection[str]) -> tuple[str, ...]:
    """Split a command into words without a shell, and check its placeholders: `{instance}`, and all `names`.

    `{seed}` and `{cutoff}` may stand in it. Raises SearchError for a command that cannot be split or is not there, an
    unknown placeholder, and a name that no placeholder uses.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise SearchError(f"command {text!r} cannot be split into words: {error}") from error
    if not words:
        raise SearchError("command is empty: give a program and its arguments, such as 'solver {instance} --a {a}'")
    used = {name for word in words for name in PLACEHOLDER.findall(word)}
    known = {"instance", "seed", "cutoff", *names}
    if unknown := sorted(used - known):
        raise SearchError(f"command has {{{unknown[0]}}}: expected {', '.join(sorted(known))}")
    if missing := sorted({"instance", *names} - used):
        what = "the instance" if missing[0] == "instance" else f"{missing[0]!r} of the space"
        raise SearchError(f"command does not use {what}: add {{{missing[0]}}}")
    if not PLACEHOLDER.search(words[0]) and shutil.which(words[0]) is None:
        raise SearchError(f"command {words[0]!r} is not there: expected a program of PATH, or the path of one")
    return words


def fill(words: Sequence[str], values: Mapping[str, Value]) -> list[str]:
    """Return the words with each placeholder replaced by its value; truth values are `true` and `false`."""

    def text(value: Value) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return [PLACEHOLDER.sub(lambda match: text(values[match.group(1)]), word) for word in words]


def run_command(words: Sequence[str], cutoff: float) -> CommandRun:
    """Run a command for at most `cutoff` seconds, then end it with all processes that it started.

    It gets a process group of its own, no input, and is killed when this process dies. Raises SearchError when it
    cannot be started.
    """
    adopt_orphans()
    before = set(children())
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        except OSError as error:
            raise SearchError(f"command {words[0]!r} cannot be run ({system_error(error, 'start')})") from error
        code: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(cutoff)
            seconds = min(time.perf_counter() - started, cutoff)
        finally:  # Ctrl-C, too
            left = end_processes(process, before)
        number, line = read_output(output)
        line = line or read_output(errors)[1]
    return CommandRun(seconds, code, number, line, left if code is not None else 0)


def end_processes(process: subprocess.Popen[bytes], before: Collection[psutil.Process]) -> int:
    """End the process, its group, and all its descendants; return how many others than the process there were.

    `before` are the children of this process that are not the command's.
    """
    alive = [one for one in children() if one not in before and one.pid != process.pid and is_alive(one)]
    for name in (signal.SIGTERM, signal.SIGKILL):
        running = [*(one for one in children() if one not in before), *alive]
        if not any(map(is_alive, running)):
            break
        with contextlib.suppress(OSError):
            os.killpg(process.pid, name)
        for one in running:
            with contextlib.suppress(psutil.Error, OSError):
                one.send_signal(name)
        psutil.wait_procs([one for one in running if one.pid != process.pid], GRACE)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    process.wait()
    reap_orphans(before)
    return len(alive)


def children() -> list[psutil.Process]:
    """Return all descendants of this process."""
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; one that ended and was not waited for does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose parents end, so that they are found (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(before: Collection[psutil.Process]) -> None:
    """Wait for adopted processes that have ended."""
    for one in children():
        if one not in before and not is_alive(one):
            with contextlib.suppress(OSError):
                os.waitpid(one.pid, os.WNOHANG)


def die_with_parent() -> None:
    """Ask for a kill of this process when its parent dies (Linux); called between fork and exec."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def read_output(output: IO[bytes]) -> tuple[float | None, str]:
    """Return the last number of an output, None where there is none, and its last line."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - OUTPUT_BYTES))
    text = output.read().decode("utf-8", "replace").strip()
    found = NUMBER.findall(text)
    return (float(found[-1]) if found else None), (text.splitlines()[-1][:200] if text else "")


def instances_of(folder: Path) -> tuple[str, ...]:
    """Return the paths of the files in a folder, sorted. Raises SearchError where there is none."""
    if not folder.is_dir():
        raise SearchError(f"instances {folder} is no folder")
    found = tuple(str(path.resolve()) for path in sorted(folder.rglob("*")) if path.is_file())
    if not found:
        raise SearchError(f"instances {folder} holds no files")
    return found
