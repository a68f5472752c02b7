"""Memory limits of workers: checked before loading, enforced by the kernel, monitored at run time.

Theory of operation. The memory limit of a worker is its planned memory and its share of the rest of its device. The
limits of all workers on a device thus add up to its memory. For a worker process on a CPU the limit is enforced twice.
The kernel refuses private memory (`RLIMIT_DATA`) beyond the limit, with a margin, because runtimes reserve more than
they touch. The kernel's limit is set after the runtime is imported. And the engine checks the resident memory every
second: a worker over its limit is killed and restarted, like one that died. The shared ring does not count.
Workers in threads share one process, so its growth cannot be assigned to one of them: only their plan is checked. On a
GPU the backend gets the limit.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

from ripieno.errors import EngineError

RESERVED = 1.25
"""Most bytes of private memory that a runtime reserves per byte that it touches."""
LOOSE = 64 << 20
"""Additional private bytes: memory that Python and the runtime map and never touch."""
STACK = 8 << 20
"""Bytes mapped for the stack of one thread."""


def resident(process: int | str = "self") -> int:
    """Return the bytes of unshared resident memory of a process; 0 if it has ended."""
    sizes = _status(process)
    return sizes.get("RssAnon", 0) + sizes.get("RssFile", 0)


def set_limit(limit: int, threads: int) -> None:
    """Limit this process to `limit` bytes plus stacks of `threads`; 0: no limit. Raises EngineError when too low."""
    if not limit:
        return
    room = limit - resident()
    if room <= 0:
        raise EngineError(
            f"A worker uses {mib(resident())} before it loads a member; its limit is {mib(limit)}. {_ADVICE}"
        )
    most = _status("self").get("VmData", 0) + int(room * RESERVED) + LOOSE + threads * STACK
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def is_exceeded(limit: int, process: int) -> str:
    """Return an error message if a worker process uses more than `limit` bytes; else an empty string."""
    taken = resident(process) if limit else 0
    return f"The worker used {mib(taken)} of memory, over its limit of {mib(limit)}. {_ADVICE}" if taken > limit else ""


def explain_oom(error: BaseException, limit: int) -> str:
    """Return a one-line message if `error` is a lack of memory under `limit`; empty for any other error."""
    text = f"{type(error).__name__} {error}".lower()
    out_of_memory = isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)
    return f"The worker needs more memory than its limit of {mib(limit)}. {_ADVICE}" if limit and out_of_memory else ""


def mib(count: float) -> str:
    """Format bytes as MiB: `157286400` as `150 MiB`."""
    return f"{count / (1 << 20):,.0f} MiB"


_ADVICE = "Measure and allocate again, or give its device more memory."
_SIGNS = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "not enough memory", "cannot allocate")


def _status(process: int | str) -> dict[str, int]:
    """Return sizes in bytes from /proc, by the kernel's names."""
    sizes = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                sizes[name] = int(value.split()[0]) << 10
    return sizes
