"""Memory that lanes may take: checked before anything is loaded, refused by the kernel, watched while they run.

Theory of operation. A lane's *cap* is what it is planned to take and its part of what its device has left over, so
that the caps of a device's lanes add up to the device's memory. For a lane in a process on a processor it is enforced
twice. The kernel refuses more private memory (`RLIMIT_DATA`) than the cap leaves after the runtime is imported, with
some room, because runtimes reserve more than they touch. And the engine looks at what is resident, every second: a lane
over its cap is ended and started again, like one that died. What the ring shares between processes counts for nobody.
Lanes in threads share one process, whose growth no one lane can be blamed for: only their plan is checked. On a GPU the
backend is told the cap.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

from ripieno.errors import EngineError

RESERVED = 1.25
"""Private memory a runtime reserves for each byte it touches, as far as it is allowed to."""
LOOSE = 64 << 20
"""Private bytes beyond that: what Python and the runtime map and never touch."""
STACK = 8 << 20
"""Bytes mapped for the stack of a thread."""


def resident(process: int | str = "self") -> int:
    """Bytes of memory that a process holds for itself, without what it shares; 0 when it is gone."""
    found = _status(process)
    return found.get("RssAnon", 0) + found.get("RssFile", 0)


def set_limit(cap: int, threads: int) -> None:
    """Have the kernel refuse this process more than `cap` bytes, for `threads` threads yet to come. 0: no cap.

    Raises EngineError when there is nothing left to load a member into.
    """
    if not cap:
        return
    room = cap - resident()
    if room <= 0:
        raise EngineError(f"a lane takes {mib(resident())} before it holds a member, of {mib(cap)}: {MEND}")
    most = _status("self").get("VmData", 0) + int(room * RESERVED) + LOOSE + threads * STACK
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def is_exceeded(cap: int, process: int) -> str:
    """Why a lane's process must end: it holds more than `cap` bytes; empty when it does not."""
    taken = resident(process) if cap else 0
    return f"it took {mib(taken)} of memory, over its {mib(cap)}: {MEND}" if taken > cap else ""


def explain_oom(error: BaseException, cap: int) -> str:
    """One line for `error` when it is want of memory in a process under `cap`; empty for any other error."""
    text = f"{type(error).__name__} {error}".lower()
    starved = isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)
    return f"it needs more memory than its {mib(cap)}: {MEND}" if cap and starved else ""


def mib(count: float) -> str:
    """`157286400` as `150 MiB`."""
    return f"{count / (1 << 20):,.0f} MiB"


MEND = "measure and allocate again, or give its device more"
_SIGNS = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "not enough memory", "cannot allocate")


def _status(process: int | str) -> dict[str, int]:
    """Sizes in bytes from /proc, by the kernel's names."""
    found = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[name] = int(value.split()[0]) << 10
    return found
