"""Searches of the benchmarks on tasks as processes of their own, with the processor time that they used."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ripieno.library import Library

CORES = 2
REST = 30.0
"""Seconds of processor time that are not worth another start."""


def timed_search(run: Path, arguments: Sequence[str], minutes: float) -> Library:
    """Return the library of a search of `minutes` of all cores by `ripieno tune` with `arguments`.

    Where it had less than the processor time of that, because of other work on the machine, it is resumed for the rest.
    """
    used = 0.0 if not run.exists() else spent(run)
    limit = 60 * minutes * CORES
    while limit - used > REST:
        used += _tune(run, [*arguments, "--hours", str((limit - used) / CORES / 3600)])
        _keep(run, used, 0)
    return Library(run)


def counted_search(run: Path, arguments: Sequence[str], trials: int) -> Library:
    """Return the library of a search of `trials` by `ripieno tune` with `arguments`."""
    used = 0.0 if not run.exists() else spent(run)
    if not run.exists() or json.loads(_spent_path(run).read_text())["trials"] < trials:
        used += _tune(run, [*arguments, "--trials", str(trials)])
        _keep(run, used, trials)
    return Library(run)


def spent(run: Path) -> float:
    """Return the seconds of processor time of a search. Ends the program where they are not known."""
    if not _spent_path(run).exists():
        raise SystemExit(f"{run} holds a search that was interrupted: remove it, since its time is not known.")
    return float(json.loads(_spent_path(run).read_text())["processor seconds"])


def _tune(run: Path, arguments: Sequence[str]) -> float:
    command = [sys.executable, "-m", "ripieno", "tune", *arguments, "--run", str(run), "--slots", str(CORES)]
    before = processor_seconds()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return processor_seconds() - before


def _keep(run: Path, used: float, trials: int) -> None:
    _spent_path(run).write_text(json.dumps({"processor seconds": used, "trials": trials}) + "\n")


def _spent_path(run: Path) -> Path:
    return run / "spent.json"


def processor_seconds() -> float:
    """Return the processor time of all child processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
