"""Latency model: simulation of the engine's scheduling with profiled times. Pure: the arrivals are an argument.

The scheduling rule is the engine's. An idle resource serves the member with the oldest waiting samples; on a tie, the
one with the longest batch time. It takes the waiting samples up to the placement's batch size. A sample is complete
when every member has predicted it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ripieno.allocation import throughput_model
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.problem import Placements
from ripieno.types import Device


def arrivals(rate: float, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the arrival times in seconds of `count` samples of a Poisson process with `rate` per second."""
    return np.cumsum(generator.exponential(1 / rate, count))


def latencies(
    placements: Placements, devices: Sequence[Device], costs: ProfileCosts, times: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the seconds from each arrival in `times` (ascending) to its completion."""
    by_name = {d.name: d for d in devices}
    loads = throughput_model.workload(placements, devices, costs)
    lanes: dict[str, set[int]] = defaultdict(set)
    placed: dict[throughput_model.Resource, list[int]] = defaultdict(list)
    for i, p in enumerate(placements):
        lanes[p.device].add(p.lane)
        placed[loads.resources[i]].append(i)
    count = len(times)
    dispatched = dict.fromkeys(loads.members, 0)
    left = np.full(count, len(dispatched))
    completed = np.zeros(count)
    idle = sorted(placed)
    events: list[tuple[float, throughput_model.Resource, int, int]] = []
    arrived = 0
    now = 0.0

    def start(resource: throughput_model.Resource) -> bool:
        waiting = [
            (dispatched[placements[i].member], -placements[i].batch_size * loads.seconds[i], i)
            for i in placed[resource]
            if dispatched[placements[i].member] < arrived
        ]
        if not waiting:
            return False
        first, _, i = min(waiting)
        p = placements[i]
        last = min(arrived, first + p.batch_size)
        seconds = costs.seconds(p.member, by_name[p.device], last - first, len(lanes[p.device]))
        dispatched[p.member] = last
        heapq.heappush(events, (now + seconds, resource, first, last))
        return True

    while arrived < count or events:
        if events and (arrived == count or events[0][0] <= times[arrived]):
            now, resource, first, last = heapq.heappop(events)
            left[first:last] -= 1
            done = first + np.flatnonzero(left[first:last] == 0)
            completed[done] = now
            idle.append(resource)
        else:
            now = float(times[arrived])
            arrived = int(np.searchsorted(times, now, side="right"))
        idle = [resource for resource in idle if not start(resource)]
    return completed - times


def p99(placements: Placements, devices: Sequence[Device], costs: ProfileCosts, times: NDArray[np.float64]) -> float:
    """Return the p99 latency in seconds of samples that arrive at `times`."""
    return float(np.quantile(latencies(placements, devices, costs, times), 0.99))
