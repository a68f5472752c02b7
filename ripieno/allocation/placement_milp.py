"""Best allocation by the model, and a bound on it: a mixed-integer program solved by SciPy's HiGHS.

Imported only when needed, since SciPy is slow to import.

The program of `solve_optimum`; f is the share of a resource's time for (member, batch size), t its seconds per sample:

    maximise X  where  sum of f / t over resources and batch sizes >= X       for each member
                       sum of y over resources and batch sizes >= 1           for each member
                       sum of f over members and batch sizes <= z             for each resource
                       sum of y over members and batch sizes >= z             for each resource
                       f <= y                                                 for each (member, resource, batch size)
                       sum of y over batch sizes <= z                         for each (member, resource)
                       sum of bytes * y + base * lanes * z <= memory          for each device
                       sum of z over divisions of a device <= 1               for each device
    y, z binary: y places a member on a resource with a batch size; z divides a CPU among a number of workers. Each such
    worker is a resource; so is a GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ripieno.allocation import throughput_model
from ripieno.allocation.milp_solver import CapacityConstraint, ConstraintRows, solve
from ripieno.allocation.problem import AllocationProblem, Placements, canonical
from ripieno.types import Device, Placement

GAP = 1e-6
"""Relative gap at which the solver stops."""


@dataclass(frozen=True)
class Optimum:
    """The best placements found, and an upper `bound` on the throughput of any allocation; equal when solved."""

    placements: Placements | None
    """None if nothing fits, or no placements were found in time"""
    throughput: float
    bound: float
    """infinite if no bound was found in time, 0 if nothing fits"""


@dataclass(frozen=True)
class _Instance:
    """One possible placement: a column of f and a column of y."""

    placement: Placement
    mode: int
    seconds: float
    bytes: int


def solve_optimum(
    problem: AllocationProblem, seconds: float = 10.0, known: Placements | None = None, relaxed: bool = False
) -> Optimum:
    """Find the placements of highest predicted throughput within `seconds`.

    `known` placements shorten the search and are returned if it finds none better in time. `relaxed` drops the
    integrality of y and z: a quick bound, without placements.
    """
    floor = throughput_model.predict(known, problem.devices, problem.costs).throughput if known else 0.0
    modes = [(d, lanes) for d in problem.devices for lanes in problem.lane_counts(d) if _pays(problem, d, lanes)]
    instances = [instance for i, mode in enumerate(modes) for instance in _candidate_instances(problem, i, *mode)]
    if {s.placement.member for s in instances} != set(problem.members):
        return Optimum(None, 0.0, 0.0)
    scale = 1 / _upper_bound(problem, modes, instances)
    rows = _constraints(problem, modes, instances, scale)
    n, k = len(instances), len(modes)
    columns = 1 + 2 * n + k  # X, f, y, z
    objective = np.zeros(columns)
    objective[0] = -1.0
    whole = np.concatenate([np.zeros(1 + n), np.full(n + k, 0.0 if relaxed else 1.0)])
    lower, upper = np.zeros(columns), np.ones(columns)
    lower[0] = min(1.0, floor * scale * (1 - GAP))
    rooms = [
        CapacityConstraint(
            [1 + n + i for i in inside], [instances[i].bytes for i in inside], d.memory - lanes * problem.costs.base(d)
        )
        for mode, (d, lanes) in enumerate(modes)
        for inside in [[i for i, s in enumerate(instances) if s.mode == mode]]
    ]
    result = solve(objective, whole, lower, upper, rows, rooms, seconds, GAP)
    if result.infeasible and known is None:
        return Optimum(None, 0.0, 0.0)
    bound = float("inf") if result.bound is None else -result.bound / scale
    placements, throughput = known, floor
    if result.x is not None and not relaxed:
        solved = _solution(instances, result.x[1 : 1 + n], result.x[1 + n : 1 + 2 * n])
        then = throughput_model.predict(solved, problem.devices, problem.costs).throughput
        if known is None or then > floor:
            placements, throughput = solved, then
    return Optimum(placements, throughput, max(bound, throughput))


def _upper_bound(problem: AllocationProblem, modes: list[tuple[Device, int]], instances: list[_Instance]) -> float:
    """Return a bound in samples per second: of the slowest member, alone on all devices or on its one device."""
    speeds: dict[str, dict[str, float]] = {m: {} for m in problem.members}
    for s in instances:
        by_device, device = speeds[s.placement.member], s.placement.device
        lanes = modes[s.mode][1] if problem.replicas else 1
        by_device[device] = max(by_device.get(device, 0.0), lanes / s.seconds)
    return min(sum(rates.values()) if problem.replicas else max(rates.values()) for rates in speeds.values())


def _pays(problem: AllocationProblem, device: Device, lanes: int) -> bool:
    """Return whether `device` divided among `lanes` workers can be faster than with one worker.

    It cannot if no member was measured on such a part: `ProfileCosts` then assumes a time inversely proportional to the
    cores. Nor if the workers' base memory exceeds the device. Every other division must be in the program; otherwise
    its result does not bound plans that use the division.
    """
    if lanes == 1:
        return True
    fits = lanes * problem.costs.base(device) < device.memory
    return fits and any(problem.costs.measured(m, device, lanes) for m in problem.members)


def _candidate_instances(problem: AllocationProblem, mode: int, device: Device, lanes: int) -> Iterable[_Instance]:
    for member in problem.members:
        if device not in problem.allowed_devices(member):
            continue
        for size in problem.sizes(member):
            seconds = problem.costs.seconds(member, device, size, lanes) / size
            needs = problem.costs.bytes(member, device, size)
            if needs + lanes * problem.costs.base(device) <= device.memory:
                for lane in range(lanes):
                    yield _Instance(Placement(member, device.name, size, lane), mode, seconds, needs)


def _constraints(
    problem: AllocationProblem, modes: list[tuple[Device, int]], instances: list[_Instance], scale: float
) -> ConstraintRows:
    n = len(instances)
    f, y, z = 1, 1 + n, 1 + 2 * n  # first column of each kind
    of_member: dict[str, list[int]] = defaultdict(list)
    of_lane: dict[tuple[int, int], list[int]] = defaultdict(list)
    of_worker: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    of_device: dict[str, list[int]] = defaultdict(list)
    for i, s in enumerate(instances):
        of_member[s.placement.member].append(i)
        of_lane[s.mode, s.placement.lane].append(i)
        of_worker[s.placement.member, s.mode, s.placement.lane].append(i)
        of_device[s.placement.device].append(i)
    rows = ConstraintRows()
    for member in problem.members:
        rows.add([(0, 1.0), *((f + i, -scale / instances[i].seconds) for i in of_member[member])], 0.0)
        rows.add([(y + i, -1.0) for i in of_member[member]], -1.0)
        if not problem.replicas:
            rows.add([(y + i, 1.0) for i in of_member[member]], 1.0)
    for (mode, _), inside in of_lane.items():
        rows.add([*((f + i, 1.0) for i in inside), (z + mode, -1.0)], 0.0)
        rows.add([*((y + i, -1.0) for i in inside), (z + mode, 1.0)], 0.0)  # every worker has a member
    for (_, mode, _), inside in of_worker.items():
        rows.add([*((y + i, 1.0) for i in inside), (z + mode, -1.0)], 0.0)
    for i, s in enumerate(instances):  # no more time than the upper bound of X needs: tightens the program
        rows.add([(f + i, 1.0), (y + i, -min(1.0, s.seconds / scale))], 0.0)
    for device in problem.devices:
        divisions = [k for k, (d, _) in enumerate(modes) if d is device]
        # in fractions of the device's memory
        share = 1 / max(1, device.memory)
        bases = [(z + k, modes[k][1] * problem.costs.base(device) * share) for k in divisions]
        rows.add([*((y + i, instances[i].bytes * share) for i in of_device[device.name]), *bases], 1.0)
        rows.add([(z + k, 1.0) for k in divisions], 1.0)
    return rows


def _solution(instances: list[_Instance], shares: NDArray[np.float64], chosen: NDArray[np.float64]) -> Placements:
    """Return a solution's placements with a share of time; of a member without any, all chosen ones."""
    picked = [i for i in range(len(instances)) if chosen[i] > 0.5]
    used = [i for i in picked if shares[i] > 1e-7]
    used_members = {instances[i].placement.member for i in used}
    used += [i for i in picked if instances[i].placement.member not in used_members]
    return canonical(instances[i].placement for i in used)
