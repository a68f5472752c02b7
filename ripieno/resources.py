"""What this process may use of the machine: cores and memory, within the limits of its control groups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Environment variables that libraries take their number of threads from."""
WAIT_POLICY = ("OMP_WAIT_POLICY", "passive")
"""How OpenMP's threads wait for each other. By default they spin: beside another busy process, the one that has no core
keeps all others spinning until it gets one, and training slows down to a fraction. Asleep they cost their share."""
GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where a process's control groups are named, and where they are mounted."""


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables of a child process that computes with so many `threads`, asleep while they wait.

    A policy of waiting that this process was given stands. They count only before the libraries are loaded.
    """
    name, policy = WAIT_POLICY
    return {**dict.fromkeys(THREAD_VARIABLES, str(threads)), name: os.environ.get(name, policy)}


def sleep_while_waiting() -> None:
    """Let OpenMP's threads of this process sleep while they wait, unless the user chose; before PyTorch is loaded."""
    os.environ.setdefault(*WAIT_POLICY)


def usable_cores(group: Path = GROUP, mount: Path = GROUPS) -> tuple[int, ...]:
    """Cores this process may use, no more of them than its control groups let it keep busy, and at least one.

    A quota says how many, not which: those of the lowest number are taken.
    """
    cores = sorted(os.sched_getaffinity(0))
    quotas = [quota for folder in _groups("cpu", group, mount) for quota in _quotas(folder)]
    return tuple(cores[: max(1, min(quotas, default=len(cores)))])


def free_memory(group: Path = GROUP, mount: Path = GROUPS) -> int:
    """Bytes this process could still take: what the machine has free, or what its control groups leave."""
    left = [size for folder in _groups("memory", group, mount) for size in _left(folder)]
    return max(0, min([int(psutil.virtual_memory().available), *left]))


def _groups(controller: str, group: Path, mount: Path) -> Iterator[Path]:
    """Folders of this process's control groups that may limit what `controller` is about, each with those above it.

    They are version 2's, which know all controllers, and version 1's, mounted by the names of theirs.
    """
    for line in group.read_text().splitlines() if group.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = mount / controllers if controllers else mount
            here = root / path.strip("/")
            yield from (folder for folder in (here, *here.parents) if folder == root or root in folder.parents)


def _left(folder: Path) -> Iterator[int]:
    """Bytes that the group leaves, by version 2's names or version 1's; nothing where it sets no limit."""
    for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # absent, or `max`
            yield int((folder / most).read_text()) - int((folder / used).read_text()) + _reclaimable(folder)


def _quotas(folder: Path) -> Iterator[int]:
    """Whole cores that the group lets be kept busy, by version 2's names or version 1's; nothing without a limit."""
    with contextlib.suppress(OSError, ValueError):  # absent, or `max`
        quota, period = map(int, (folder / "cpu.max").read_text().split())
        yield quota // period
    with contextlib.suppress(OSError, ValueError):
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        if quota > 0:  # -1: no limit
            yield quota // period


def _reclaimable(folder: Path) -> int:
    """Bytes of file cache that the kernel drops before it refuses memory."""
    for line in (folder / "memory.stat").read_text().splitlines() if (folder / "memory.stat").exists() else ():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0
