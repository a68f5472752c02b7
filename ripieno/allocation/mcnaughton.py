"""Placement on many equal devices: time per kind of device by a linear program, then McNaughton's wrap-around rule.

Theory of operation. Without memory limits, the devices of a kind are one pool of time. A linear program divides the
pools among the members, at each member's fastest batch size. The rule then fills device after device completely, member
after member; a member continues on the next device when one is full. So each device holds a few members, each member
has as many devices as its time fills, and no pool time is lost. Batch sizes are fitted to the memory at the end.

Imported only when needed, since SciPy is slow to import.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from ripieno.allocation.hill_climbing import with_best_batch_sizes
from ripieno.allocation.problem import AllocationProblem, Placements, canonical
from ripieno.types import Device, Placement

CRUMB = 1e-6
"""Fractions of a device's time below this get no replica."""


def mcnaughton_wrap(problem: AllocationProblem) -> Placements | None:
    """Wrap the members around the devices of each kind; None if memory is too small or pins name devices."""
    if any(pin.device for pin in problem.pins.values()) or not problem.replicas:
        return None
    pools: dict[str, list[Device]] = defaultdict(list)
    for device in problem.devices:
        pools[device.kind].append(device)
    seconds = np.array([[problem.fastest(m, pool[0]) for pool in pools.values()] for m in problem.members])
    shares = _share(seconds, np.array([len(pool) for pool in pools.values()]))
    placed: list[Placement] = []
    for pool, wanted in zip(pools.values(), shares.T, strict=True):
        number, full = 0, 0.0
        for member, share in zip(problem.members, wanted, strict=True):
            left = float(share)
            while left > CRUMB and number < len(pool):
                taken = min(left, 1 - full)
                if taken > CRUMB:
                    placed.append(Placement(member, pool[number].name, min(problem.sizes(member))))
                left, full = left - taken, full + taken
                if full > 1 - CRUMB:
                    number, full = number + 1, 0.0
    result = canonical(with_best_batch_sizes(tuple(placed), problem, problem.by_name))
    return result if problem.allows(result) else None


def _share(seconds: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each member's time of each pool (members, pools), in devices, that maximises the throughput."""
    members, pools = seconds.shape
    scale = float(np.exp(np.log(seconds).mean()))
    matrix = np.zeros((members + pools, 1 + members * pools))
    matrix[:members, 0] = 1.0  # X - sum f / t <= 0
    matrix[np.repeat(np.arange(members), pools), 1 + np.arange(seconds.size)] = -scale / seconds.ravel()
    matrix[members:, 1:] = np.tile(np.eye(pools), members)  # sum f <= devices
    objective = np.zeros(matrix.shape[1])
    objective[0] = -1.0
    result = linprog(objective, matrix, np.concatenate([np.zeros(members), counts]), method="highs")
    assert result.status == 0, result.message
    shares: NDArray[np.float64] = result.x[1:].reshape(members, pools)
    return shares
