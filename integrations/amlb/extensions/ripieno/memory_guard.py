"""Bound of the memory of this process and its children."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

import psutil

log = logging.getLogger(__name__)

MB = 1 << 20


class MemoryGuard:
    """Thread that kills the largest child while this process and its children have more than `limit_mb` MB.

    A trial whose process is killed fails, and the search goes on with others.
    """

    def __init__(self, limit_mb: float, interval: float = 1.0) -> None:
        self._limit, self._interval = limit_mb * MB, interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._interval):
            self._check()

    def _check(self) -> None:
        this = psutil.Process()
        sizes = {child: own for child in this.children(recursive=True) if (own := _private_memory(child))}
        total = _private_memory(this) + sum(sizes.values())
        if total > self._limit and sizes:
            largest = max(sizes, key=sizes.__getitem__)
            used, allowed = total // MB, int(self._limit) // MB
            log.warning("%d MB of %d MB are used: process %d is ended", used, allowed, largest.pid)
            largest.kill()


def _private_memory(process: psutil.Process) -> int:
    """Return the bytes of a process that it shares with no other; 0 when it has ended."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - memory.shared)
