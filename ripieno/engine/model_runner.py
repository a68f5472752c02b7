"""The members a lane holds, loaded and ready: what runs inside a lane, in a thread or in a process of its own.

Imports NumPy and the backend of the members, nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends import Backend, runtime
from ripieno.engine.memory import Memory, Slots
from ripieno.errors import EngineError, RipienoError
from ripieno.types import Device, Member

Load = Callable[[str, Path, Member, Device, int], Backend]
"""The form of `ripieno.backends.load`."""


@dataclass(frozen=True)
class ModelSpec:
    """A member of a lane: its index in the ensemble and its file."""

    index: int
    member: Member
    path: Path
    backend: str = ""
    """what it is run by; empty: what its lane says"""
    batch_size: int = 1
    """most samples it is given at once"""
    stamp: tuple[int, ...] = ()
    """of its file when the engine was opened, by `stamp_of`"""


@dataclass(frozen=True)
class WorkerConfig:
    """All a lane must know: who sits in it, with how many threads, on which cores (empty: not pinned)."""

    backend: str
    device: Device
    threads: int
    cores: tuple[int, ...]
    models: tuple[ModelSpec, ...]
    trusted: tuple[str, ...] = ()
    """the user's own families (`module:function`) that may be imported"""
    memory_limit: int = 0
    """most bytes it may take; 0: nothing was planned"""


def stamp_of(path: Path) -> tuple[int, ...]:
    """What changes with a file's content: its inode, size and times; empty where there is none."""
    try:
        seen = os.stat(path)
    except OSError:
        return ()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def find_load(name: str) -> Load:
    """The function that `load_name` named. Raises EngineError when it is not there."""
    module, _, function = name.partition(":")
    try:
        found: Load = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise EngineError(f"a lane process cannot import {name}: put the function in an importable module") from error
    return found


def load_name(load: Load) -> str:
    """`module:function`, by which another process finds `load`. Raises EngineError when it has no such name."""
    name = f"{getattr(load, '__module__', None)}:{getattr(load, '__qualname__', None)}"
    if "<" in name or "." in name.partition(":")[2] or name.startswith(("None:", "__main__:")):
        raise EngineError(f"{load!r} must be a function at the top of a module for lanes in processes")
    return name


def import_runtime(orders: WorkerConfig) -> None:
    """Import what runs a lane's members, so that what it takes is not held against them."""
    for backend in {seat.backend or orders.backend for seat in orders.models}:
        with contextlib.suppress(RipienoError, ImportError):  # who needs it will say so
            runtime(backend)


def with_trusted(load: Load, trusted: Sequence[str]) -> Load:
    """`load` that may import the user's own families `trusted`, if there are any."""
    wide: Any = load
    return functools.partial(wide, trusted=tuple(trusted)) if trusted else load


def describe(error: BaseException) -> str:
    """An error in one line; an error of ripieno's speaks for itself."""
    text = " ".join(str(error).split())
    return text if isinstance(error, RipienoError) else f"{type(error).__name__}: {text}"


def trim_heap() -> None:
    """Return to the system what was freed: the files that were read, twice their weights, stay with glibc otherwise."""
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)


class ModelRunner:
    """Loaded members of one lane. Lives in one thread, which it pins to the lane's cores."""

    def __init__(self, load: Load, orders: WorkerConfig, memory: Memory) -> None:
        self._memory = memory
        self._backends: dict[int, Backend] = {}
        self._largest = {seat.index: seat.batch_size for seat in orders.models if orders.device.type == "cuda"}
        if orders.cores:
            os.sched_setaffinity(0, orders.cores)
        load = with_trusted(load, orders.trusted)
        try:
            for seat in orders.models:
                if stamp_of(seat.path) != seat.stamp:  # a worker that restarts must answer as those that go on
                    raise EngineError(f"{seat.path} has changed since the engine was opened: open the engine again")
                backend = seat.backend or orders.backend
                self._backends[seat.index] = load(backend, seat.path, seat.member, orders.device, orders.threads)
        except BaseException:
            self.close()
            raise

    def warm_up(self) -> dict[int, float]:
        """Run every member on one blank sample, twice; seconds of the second run by member index.

        On a GPU each runs on its largest batch before that: TensorRT builds anew for every batch larger than those
        before, for a minute or more, which must not be while it serves.
        """
        blank = np.zeros((1, *self._memory.samples.shape[1:]), self._memory.samples.dtype)
        seconds = {}
        for index, backend in self._backends.items():
            if index in self._largest:
                backend.infer(np.repeat(blank, self._largest[index], axis=0))
            shape, wanted = backend.infer(blank).shape, (1, self._memory.predictions.shape[2])
            if shape != wanted:
                raise EngineError(f"The prediction for one sample has shape {shape}, expected {wanted}.")
            start = time.perf_counter()
            backend.infer(blank)
            seconds[index] = time.perf_counter() - start
        trim_heap()
        return seconds

    def run(self, member: int, slots: Slots) -> tuple[NDArray[np.float32], float]:
        """Probabilities of the samples in `slots` by `member`, and the seconds it took."""
        images = self._memory.gather(slots)
        start = time.perf_counter()
        probabilities = self._backends[member].infer(images)
        return probabilities, time.perf_counter() - start

    def close(self) -> None:
        """Free the members."""
        for backend in self._backends.values():
            backend.close()
        self._backends.clear()
