"""Time of a call on an idle machine, measured on a machine that may be busy.

Theory of operation. There are two kinds of disturbance. The kernel counts the time a thread waits for a busy core
(`run_delay` of schedstat). That time is subtracted exactly, so a process that takes half of a core during the whole
measurement does not double the result. Other disturbances (cold caches, a slower clock) can only add time, in some
intervals more than in others; so the fastest intervals count.
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
"""Number of intervals per window; the fastest of this many intervals must agree."""
BUSY = 0.1
"""The machine is idle if other processes used less than this fraction of its processors."""


class CpuInterference:
    """CPU use of other processes on this machine."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.busy, self.own = self._busy(), time.process_time()

    @staticmethod
    def _busy() -> float:
        """Return CPU seconds of all processes; guest time is part of `user`, and stolen time counts."""
        times: dict[str, float] = psutil.cpu_times()._asdict()
        return sum(v for k, v in times.items() if k not in ("idle", "iowait", "guest", "guest_nice"))

    def share(self) -> float:
        """Return the fraction of all processors, 0..1, used by other processes since this object was created."""
        others = self._busy() - self.busy - (time.process_time() - self.own)
        return max(0.0, others) / max(1e-3, time.perf_counter() - self.started) / (os.cpu_count() or 1)


class RunQueueDelay:
    """Seconds that the threads of this process waited for a core, since each was first seen."""

    def __init__(self, tasks: Path = Path("/proc/self/task")) -> None:
        self._tasks = tasks
        self._files: dict[str, int] = {}
        self._before: dict[str, tuple[int, int]] = {}
        self.look()

    def look(self) -> None:
        """Find new threads."""
        for task in self._tasks.iterdir() if self._tasks.is_dir() else ():
            if task.name not in self._files:
                try:
                    self._files[task.name] = os.open(task / "schedstat", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:  # the thread ended, or this kernel does not count
                    continue
        self()

    def __call__(self) -> float:
        """Return the seconds waited since the last call by the thread that waited longest: all threads wait for it.

        Threads that ran less than half as long as the busiest are ignored. Their waiting is not part of the call, and
        usually they wait for this process's own threads (OpenVINO keeps such threads).
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


def time_calls(
    call: Callable[[], object],
    window: float,
    spread: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    waited: Callable[[], float] = lambda: 0.0,
) -> tuple[float, float]:
    """Return the median seconds of `call()` and the relative spread of its measurements.

    After a warm-up, calls are timed in intervals of a third of `window` seconds until the medians of the three fastest
    intervals differ by at most `spread`, or `seconds` have passed. `waited` returns the seconds lost to other processes
    since its last call.
    """
    interval = window / STRETCHES
    started = clock()
    warm = _time_interval(call, interval, clock, waited)
    medians: list[float] = []
    while True:
        medians.append(_time_interval(call, interval, clock, waited))
        best = sorted(medians)[:STRETCHES]
        # with one interval, only the warm-up indicates its error
        distance = (best[-1] - best[0]) / best[0] if len(best) > 1 else abs(warm - best[0]) / best[0]
        if clock() - started >= seconds or (len(best) == STRETCHES and distance <= spread):
            return statistics.median(best), distance


def _time_interval(
    call: Callable[[], object], seconds: float, clock: Callable[[], float], waited: Callable[[], float]
) -> float:
    """Return the median seconds of `call()`, called for `seconds` and at least once."""
    times = [clock()]
    lost = []
    waited()
    while times[-1] - times[0] < seconds or len(times) == 1:
        call()
        times.append(clock())
        lost.append(waited())
    took = [b - a for a, b in itertools.pairwise(times)]
    # lost time is always less than a call, but the two clocks are read one after the other
    return statistics.median(max(t - w, t / 100) for t, w in zip(took, lost, strict=True))
