"""Resources available to this process: cores and memory, within the limits of its control groups."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Environment variables from which libraries take their number of threads."""
WAIT_POLICY = ("OMP_WAIT_POLICY", "passive")
"""Wait policy of OpenMP threads. By default they spin: next to another busy process, the thread without a core keeps
all other threads spinning, and training slows down to a fraction. Sleeping threads cost only their share."""
GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""File with the names of the process's control groups, and their mount point."""


def thread_variables(threads: int) -> dict[str, str]:
    """Return environment variables for a child process with `threads` compute threads that sleep while they wait.

    A wait policy already set for this process is kept. The variables count only before the libraries are loaded.
    """
    name, policy = WAIT_POLICY
    return {**dict.fromkeys(THREAD_VARIABLES, str(threads)), name: os.environ.get(name, policy)}


def sleep_while_waiting() -> None:
    """Let OpenMP threads of this process sleep while they wait, unless the user chose; call before loading PyTorch."""
    os.environ.setdefault(*WAIT_POLICY)


def usable_cores(group: Path = GROUP, mount: Path = GROUPS) -> tuple[int, ...]:
    """Return the usable cores, at most the CPU quota of the control groups: the lowest numbers, at least one."""
    cores = sorted(os.sched_getaffinity(0))
    quotas = [quota for folder in _groups("cpu", group, mount) for quota in _quotas(folder)]
    return tuple(cores[: max(1, min(quotas, default=len(cores)))])


def free_memory(group: Path = GROUP, mount: Path = GROUPS) -> int:
    """Return the bytes this process can still allocate: the machine's free memory or its control groups' remainder."""
    left = [size for folder in _groups("memory", group, mount) for size in _left(folder)]
    return max(0, min([int(psutil.virtual_memory().available), *left]))


def trim_heap() -> bool:
    """Return freed memory of the heap to the system; return whether the C library supports it, as glibc does.

    Otherwise glibc keeps freed memory, such as the buffers of model files or of a burst of requests, for later use.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return trim is not None


def _groups(controller: str, group: Path, mount: Path) -> Iterator[Path]:
    """Yield the control groups that may limit `controller`, and their parents; version 1 has a mount per controller."""
    for line in group.read_text().splitlines() if group.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = mount / controllers if controllers else mount
            here = root / path.strip("/")
            yield from (folder for folder in (here, *here.parents) if folder == root or root in folder.parents)


def _left(folder: Path) -> Iterator[int]:
    """Yield the bytes that the group leaves, by version 2's file names or version 1's; nothing without a limit."""
    for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # absent, or `max`
            yield int((folder / most).read_text()) - int((folder / used).read_text()) + _reclaimable(folder)


def _quotas(folder: Path) -> Iterator[int]:
    """Yield the whole cores of the group's CPU quota, by version 2's file names or version 1's; nothing without one."""
    with contextlib.suppress(OSError, ValueError):  # absent, or `max`
        quota, period = map(int, (folder / "cpu.max").read_text().split())
        yield quota // period
    with contextlib.suppress(OSError, ValueError):
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        if quota > 0:  # -1: no limit
            yield quota // period


def _reclaimable(folder: Path) -> int:
    """Return the bytes of file cache that the kernel drops before it refuses memory."""
    for line in (folder / "memory.stat").read_text().splitlines() if (folder / "memory.stat").exists() else ():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0
