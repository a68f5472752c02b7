"""Backends timed alternately, so that a temporary slowdown of the machine affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ripieno.backends import Backend


def time_alternately(
    runners: Mapping[str, Backend],
    images: NDArray[np.generic],
    *,
    rounds: int = 5,
    seconds: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Measure the seconds that each runner takes for `images` as one batch, by its name.

    Each gets a turn of `seconds` per round, after one to warm up. A turn's time is the median of its calls, and the
    lowest turn counts, because other load on a machine only ever slows a network down.
    """
    turns: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds + 1):
        for name, runner in runners.items():
            turns[name].append(_turn(runner, images, seconds, clock))
    return {name: min(taken[1:]) for name, taken in turns.items()}


def _turn(runner: Backend, images: NDArray[np.generic], seconds: float, clock: Callable[[], float]) -> float:
    times: list[float] = []
    begin = now = clock()
    while now - begin < seconds or not times:
        runner.infer(images)
        times.append(clock() - now)
        now += times[-1]
    return statistics.median(times)
