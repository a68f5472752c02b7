"""How long a call takes when nothing else runs, measured on a machine where other things may.

Theory of operation. Two disturbances are told apart. While a thread waits for a core that others hold, the kernel
counts (`run_delay` of schedstat): that time is subtracted, exactly, so that a neighbour that takes half of a core for
the whole measurement does not double the figure. What is left (cold caches, a slower clock) only ever adds, in some
stretches more than in others: the quickest stretches count.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil

STRETCHES = 3
"""A window is cut in this many stretches; the quickest ones of them must agree."""
BUSY = 0.1
"""The machine is idle when other processes took less than this share of its processors."""


class CpuInterference:
    """What other processes take of the machine's processors."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.busy, self.own = self._busy(), time.process_time()

    @staticmethod
    def _busy() -> float:
        """Processor seconds of everybody; those of virtual machines are within `user`, those stolen from us count."""
        times: dict[str, float] = psutil.cpu_times()._asdict()
        return sum(v for k, v in times.items() if k not in ("idle", "iowait", "guest", "guest_nice"))

    def share(self) -> float:
        """Share of all processors, 0..1, that others took since this object was made."""
        others = self._busy() - self.busy - (time.process_time() - self.own)
        return max(0.0, others) / max(1e-3, time.perf_counter() - self.started) / (os.cpu_count() or 1)


class RunQueueDelay:
    """Seconds the threads of this process have waited for a core, since each was first seen."""

    def __init__(self, tasks: Path = Path("/proc/self/task")) -> None:
        self._tasks = tasks
        self._files: dict[str, int] = {}
        self._before: dict[str, tuple[int, int]] = {}
        self.look()

    def look(self) -> None:
        """Find threads that began since."""
        for task in self._tasks.iterdir() if self._tasks.is_dir() else ():
            if task.name not in self._files:
                try:
                    self._files[task.name] = os.open(task / "schedstat", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:  # it has ended, or this kernel does not count
                    continue
        self()

    def __call__(self) -> float:
        """Seconds since the last call that the thread which waited longest did: the others wait for it.

        Threads that computed less than half of what the busiest did are left out: what they wait for is no part of the
        call, and most often it is our own computing (OpenVINO keeps such threads).
        """
        spent = []
        for name, file in list(self._files.items()):
            try:
                ran, waited = map(int, os.pread(file, 64, 0).split()[:2])
            except (OSError, ValueError):
                os.close(self._files.pop(name))
                continue
            before = self._before.get(name, (ran, waited))
            spent.append((ran - before[0], waited - before[1]))
            self._before[name] = (ran, waited)
        busiest = max((ran for ran, _ in spent), default=0)
        return max((waited for ran, waited in spent if 2 * ran >= busiest), default=0) / 1e9

    def close(self) -> None:
        """Forget all threads."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()


def time_calls(
    call: Callable[[], object],
    window: float,
    spread: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    waited: Callable[[], float] = lambda: 0.0,
) -> tuple[float, float]:
    """Median seconds of `call()` and the relative spread of its measurements.

    After a warm-up, calls are timed in stretches of a third of `window` seconds until the medians of the three
    quickest stretches differ by no more than `spread`, or `seconds` have passed. `waited` tells how many of the seconds
    since it was last asked were lost to others.
    """
    stretch = window / STRETCHES
    started = clock()
    warm = _stretch(call, stretch, clock, waited)
    medians: list[float] = []
    while True:
        medians.append(_stretch(call, stretch, clock, waited))
        best = sorted(medians)[:STRETCHES]
        # with one stretch only the warm-up can tell how far it may be off
        apart = (best[-1] - best[0]) / best[0] if len(best) > 1 else abs(warm - best[0]) / best[0]
        if clock() - started >= seconds or (len(best) == STRETCHES and apart <= spread):
            return statistics.median(best), apart


def _stretch(
    call: Callable[[], object], seconds: float, clock: Callable[[], float], waited: Callable[[], float]
) -> float:
    """Median seconds of `call()`, called for `seconds` and at least once."""
    times = [clock()]
    lost = []
    waited()
    while times[-1] - times[0] < seconds or len(times) == 1:
        call()
        times.append(clock())
        lost.append(waited())
    took = [b - a for a, b in itertools.pairwise(times)]
    # what was lost is never all of a call: the two clocks are read one after the other
    return statistics.median(max(t - w, t / 100) for t, w in zip(took, lost, strict=True))
