"""The floor: the best hand-tuned loop around the same backend, the reference for the engine.

One pinned worker per core with one thread runs the whole ensemble back to back on batches of its own, at the
best of several batch sizes. It has no requests, queues, copies or combination: it is the most the cores can do.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from multiprocessing.connection import Connection

import numpy as np
import psutil

from ripieno import backends
from ripieno.library.bundle import backend_of, model_path
from ripieno.types import Bundle


class Loop:
    """The whole ensemble in one thread of one core."""

    def __init__(self, bundle: Bundle, core: int) -> None:
        self.core = core
        os.sched_setaffinity(0, [core])
        device = bundle.allocation.devices[0]
        names = [backend_of(bundle, m.id, device.name) for m in bundle.members]
        self.members = [
            backends.load(name, model_path(bundle, m.id), m, device, 1)
            for name, m in zip(names, bundle.members, strict=True)
        ]
        self.images = np.random.default_rng(core).integers(0, 256, (256, *bundle.input.shape), np.uint8)

    def run(self, batch: int, seconds: float) -> float:
        """Return samples per second through all members."""
        samples = self.images[:batch]
        begin = time.perf_counter()
        count = 0
        while (now := time.perf_counter()) - begin < seconds or not count:
            for member in self.members:
                member.infer(samples)
            count += batch
        return count / (now - begin) if now > begin else 0.0


class ThreadFloor:
    """Loops in threads of this process."""

    def __init__(self, bundle: Bundle, cores: int) -> None:
        self.bundle, self.cores = bundle, cores
        self.loops: list[Loop] = [None] * cores  # type: ignore[list-item]
        self._each(self._load)

    def _load(self, core: int) -> None:
        self.loops[core] = Loop(self.bundle, core)

    def _each(self, call) -> None:
        threads = [threading.Thread(target=call, args=(core,)) for core in range(self.cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run(self, batch: int, seconds: float) -> float:
        """Return samples per second of all loops together."""
        speeds = [0.0] * self.cores

        def one(core: int) -> None:
            os.sched_setaffinity(0, [core])
            speeds[core] = self.loops[core].run(batch, seconds)

        self._each(one)
        return sum(speeds)

    def close(self) -> None:
        """Free the members."""
        self.loops.clear()


class ProcessFloor:
    """Loops in processes."""

    def __init__(self, bundle: Bundle, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for core in range(cores):
            ours, theirs = context.Pipe()
            process = context.Process(target=_process, args=(bundle, core, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def run(self, batch: int, seconds: float) -> float:
        """Return samples per second of all loops together."""
        for pipe in self.pipes:
            pipe.send((batch, seconds))
        return sum(pipe.recv() for pipe in self.pipes)

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join()


def _process(bundle: Bundle, core: int, pipe: Connection) -> None:
    loop = Loop(bundle, core)
    pipe.send(None)
    try:
        while True:
            pipe.send(loop.run(*pipe.recv()))
    except EOFError:
        pass


def answers(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    """Return the ensemble's expected answer, (samples, classes): the mean of its members' answers."""
    affinity = os.sched_getaffinity(0)
    parts = [member.infer(images) for member in Loop(bundle, min(affinity)).members]
    os.sched_setaffinity(0, affinity)
    return np.mean(parts, axis=0, dtype=np.float32)


def cpu_seconds() -> float:
    """Return CPU seconds of this process and its children: steadier than wall-clock time on a busy machine."""
    own = psutil.Process()
    family = [own, *own.children(recursive=True)]
    return sum(sum(p.cpu_times()[:2]) for p in family)
