"""Throughput model: prediction of an allocation's throughput from profiles.

Theory of operation. Every member processes every sample, so the ensemble runs at one rate X, in samples per second,
which the slowest member limits. A *resource* executes one batch at a time: a GPU (its workers take turns), or one
worker of a CPU (it has its own cores). A placement p takes t_p seconds of its resource per sample. Replicas share a
member's samples as they have time, since the engine's workers are work-conserving. The best sharing is a linear
program:

    maximise X  where  sum of x_p over placements of m = X  for each member m
                       sum of t_p x_p over placements on r <= 1  for each resource r

Without replicas there is a closed form: X = 1 / (the largest sum of t_p on a resource). The dual gives each member a
*price* (prices sum to 1): for any prices, sum over resources of max(price / t_p) bounds X from above. So the prices of
one allocation bound each neighbour at the cost of a sum, and only those that could be better are solved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.problem import Placements
from ripieno.allocation.problem import Resource as Resource
from ripieno.errors import AllocationError
from ripieno.types import Device


@dataclass(frozen=True)
class Workload:
    """Member, resource and seconds per sample of each placement, in the order of the placements."""

    members: tuple[str, ...]
    resources: tuple[Resource, ...]
    seconds: tuple[float, ...]
    """of the resource, per sample"""

    def bound(self, prices: Mapping[str, float]) -> float:
        """Return an upper bound in samples per second, from `prices` of members (which sum to 1)."""
        most: dict[Resource, float] = {}
        for member, resource, seconds in zip(self.members, self.resources, self.seconds, strict=True):
            value = prices[member] / seconds
            if value > most.get(resource, 0.0):
                most[resource] = value
        return sum(most.values())


@dataclass(frozen=True)
class Prediction:
    """Predicted throughput of an allocation."""

    throughput: float
    """samples per second of the ensemble"""
    rates: tuple[float, ...]
    """samples per second of each placement, in their order"""
    busy: Mapping[Resource, float]
    """fraction of time each resource computes, 0..1"""
    prices: Mapping[str, float]
    """share of each member in limiting the throughput; they sum to 1"""


def workload(placements: Placements, devices: Sequence[Device], costs: ProfileCosts) -> Workload:
    """Read the seconds of each placement. Raises AllocationError for an unknown device or a missing profile."""
    by_name = {device.name: device for device in devices}
    lanes: dict[str, set[int]] = defaultdict(set)
    for p in placements:
        if p.device not in by_name:
            raise AllocationError(f"unknown device {p.device!r}: expected one of {', '.join(by_name) or 'none'}")
        lanes[p.device].add(p.lane)
    return Workload(
        tuple(p.member for p in placements),
        tuple((p.device, p.lane if by_name[p.device].type == "cpu" else 0) for p in placements),
        tuple(
            costs.seconds(p.member, by_name[p.device], p.batch_size, len(lanes[p.device])) / p.batch_size
            for p in placements
        ),
    )


def predict(placements: Placements, devices: Sequence[Device], costs: ProfileCosts) -> Prediction:
    """Predict the throughput of `placements` under saturating load."""
    return solve(workload(placements, devices, costs))


def solve(loads: Workload) -> Prediction:
    """Return the best sharing of `loads`: in closed form without replicas, else by the linear program."""
    if not loads.members:
        return Prediction(0.0, (), {}, {})
    if len(set(loads.members)) == len(loads.members):
        return _without_replicas(loads)
    return balance_replicas(loads)


def balance_replicas(loads: Workload) -> Prediction:
    """Balance the samples of each member over its replicas by the linear program."""
    from scipy.optimize import linprog  # slow to import

    member_index = {m: i for i, m in enumerate(dict.fromkeys(loads.members))}
    resource_index = {r: i for i, r in enumerate(dict.fromkeys(loads.resources))}
    times = np.array(loads.seconds)
    scale = float(np.exp(np.log(times).mean()))  # keeps the numbers within the range of the solver's tolerances
    rows = np.array([member_index[m] for m in loads.members])
    lanes = np.array([resource_index[r] for r in loads.resources])
    columns = 1 + np.arange(len(rows))
    matrix = np.zeros((len(member_index) + len(resource_index), 1 + len(rows)))
    matrix[: len(member_index), 0] = 1.0  # X - sum x <= 0
    matrix[rows, columns] = -1.0
    matrix[len(member_index) + lanes, columns] = times / scale  # sum t x <= 1
    limits = np.concatenate([np.zeros(len(member_index)), np.ones(len(resource_index))])
    objective = np.zeros(1 + len(rows))
    objective[0] = -1.0
    result = linprog(objective, matrix, limits, method="highs")
    assert result.status == 0, result.message
    rates = result.x[1:] / scale
    busy = np.bincount(lanes, times * rates, minlength=len(resource_index))
    prices = np.maximum(0.0, -result.ineqlin.marginals[: len(member_index)])
    prices /= prices.sum()
    return Prediction(
        float(-result.fun / scale),
        tuple(float(r) for r in rates),
        {r: float(busy[i]) for r, i in resource_index.items()},
        {m: float(prices[i]) for m, i in member_index.items()},
    )


def _without_replicas(loads: Workload) -> Prediction:
    total: dict[Resource, float] = defaultdict(float)
    for resource, seconds in zip(loads.resources, loads.seconds, strict=True):
        total[resource] += seconds
    slowest = max(total, key=lambda r: total[r])
    rate = 1 / total[slowest]
    prices = {
        member: seconds * rate if resource == slowest else 0.0
        for member, resource, seconds in zip(loads.members, loads.resources, loads.seconds, strict=True)
    }
    busy = {resource: seconds * rate for resource, seconds in total.items()}
    return Prediction(rate, (rate,) * len(loads.members), busy, prices)
