"""A model of latency: requests one by one through the engine's own rule, on profiled times. Pure: arrivals are given.

The rule is the engine's: a resource with nothing to do takes the member whose samples wait at the lowest position,
among equals the one with the longest batch, and of its samples what is there up to the placement's batch size. A sample
is answered when every member has predicted it.
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
    """Times, in seconds, of `count` samples that come independently, `rate` a second on average."""
    return np.cumsum(generator.exponential(1 / rate, count))


def latencies(
    placements: Placements, devices: Sequence[Device], costs: ProfileCosts, times: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Seconds from each arrival in `times` (ascending) to its answer."""
    by_name = {d.name: d for d in devices}
    loads = throughput_model.workload(placements, devices, costs)
    lanes: dict[str, set[int]] = defaultdict(set)
    seats: dict[throughput_model.Resource, list[int]] = defaultdict(list)
    for i, p in enumerate(placements):
        lanes[p.device].add(p.lane)
        seats[loads.resources[i]].append(i)
    count = len(times)
    claimed = dict.fromkeys(loads.members, 0)
    left = np.full(count, len(claimed))
    answered = np.zeros(count)
    idle = sorted(seats)
    events: list[tuple[float, throughput_model.Resource, int, int]] = []
    arrived = 0
    now = 0.0

    def start(resource: throughput_model.Resource) -> bool:
        waiting = [
            (claimed[placements[i].member], -placements[i].batch_size * loads.seconds[i], i)
            for i in seats[resource]
            if claimed[placements[i].member] < arrived
        ]
        if not waiting:
            return False
        first, _, i = min(waiting)
        p = placements[i]
        last = min(arrived, first + p.batch_size)
        seconds = costs.seconds(p.member, by_name[p.device], last - first, len(lanes[p.device]))
        claimed[p.member] = last
        heapq.heappush(events, (now + seconds, resource, first, last))
        return True

    while arrived < count or events:
        if events and (arrived == count or events[0][0] <= times[arrived]):
            now, resource, first, last = heapq.heappop(events)
            left[first:last] -= 1
            done = first + np.flatnonzero(left[first:last] == 0)
            answered[done] = now
            idle.append(resource)
        else:
            now = float(times[arrived])
            arrived = int(np.searchsorted(times, now, side="right"))
        idle = [resource for resource in idle if not start(resource)]
    return answered - times


def p99(placements: Placements, devices: Sequence[Device], costs: ProfileCosts, times: NDArray[np.float64]) -> float:
    """Seconds within which 99 of 100 samples arriving at `times` are answered."""
    return float(np.quantile(latencies(placements, devices, costs, times), 0.99))
