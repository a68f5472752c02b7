"""The best allocation a model can have, and a bound on it: linear and mixed-integer programs solved by SciPy's HiGHS.

Imported only when it is needed, for SciPy is slow to import.

The program of `best`, with f the share of a resource's time given to (member, batch size), t its seconds per sample:

    maximise X  where  sum of f / t over resources and batch sizes >= X       for each member
                       sum of y over resources and batch sizes >= 1           for each member
                       sum of f over members and batch sizes <= z             for each resource
                       sum of y over members and batch sizes >= z             for each resource
                       f <= y                                                 for each (member, resource, batch size)
                       sum of y over batch sizes <= z                         for each (member, resource)
                       sum of bytes * y + base * lanes * z <= memory          for each device
                       sum of z over ways to cut a device <= 1                for each device
    y, z binary: y places a member on a resource in batches of a size; z cuts a CPU in so many lanes. A lane of a cut
    CPU is a resource; so is a GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from ripieno.allocation import throughput_model
from ripieno.allocation.milp import CapacityConstraint, ConstraintRows, solve
from ripieno.allocation.problem import AllocationProblem, Placements, canonical
from ripieno.types import Device, Placement

GAP = 1e-6
"""Relative gap at which the program counts as solved."""


@dataclass(frozen=True)
class Optimum:
    """The best placements found and a `bound` that no allocation can exceed by the model; they meet when solved."""

    placements: Placements | None
    """None when nothing fits, or nothing was found in time"""
    throughput: float
    bound: float
    """infinite when the time ended before there was one, 0 when nothing fits"""

    @property
    def feasible(self) -> bool:
        """Whether anything was found."""
        return self.placements is not None


def balance_replicas(loads: throughput_model.Workload) -> throughput_model.Prediction:
    """Share out each member's samples over its replicas so that the ensemble is fastest (see `simulate`)."""
    members = {m: i for i, m in enumerate(dict.fromkeys(loads.members))}
    resources = {r: i for i, r in enumerate(dict.fromkeys(loads.resources))}
    seconds = np.array(loads.seconds)
    scale = float(np.exp(np.log(seconds).mean()))  # so that the solver's tolerances mean something
    rows = np.array([members[m] for m in loads.members])
    lanes = np.array([resources[r] for r in loads.resources])
    columns = 1 + np.arange(len(rows))
    matrix = np.zeros((len(members) + len(resources), 1 + len(rows)))
    matrix[: len(members), 0] = 1.0  # X - sum x <= 0
    matrix[rows, columns] = -1.0
    matrix[len(members) + lanes, columns] = seconds / scale  # sum t x <= 1
    limits = np.concatenate([np.zeros(len(members)), np.ones(len(resources))])
    objective = np.zeros(1 + len(rows))
    objective[0] = -1.0
    result = linprog(objective, matrix, limits, method="highs")
    assert result.status == 0, result.message
    rates = result.x[1:] / scale
    busy = np.bincount(lanes, seconds * rates, minlength=len(resources))
    prices = np.maximum(0.0, -result.ineqlin.marginals[: len(members)])
    prices /= prices.sum()
    return throughput_model.Prediction(
        float(-result.fun / scale),
        tuple(float(r) for r in rates),
        {r: float(busy[i]) for r, i in resources.items()},
        {m: float(prices[i]) for m, i in members.items()},
    )


@dataclass(frozen=True)
class _Instance:
    """One possible placement: a column of f and one of y."""

    placement: Placement
    mode: int
    seconds: float
    bytes: int


def solve_optimum(
    problem: AllocationProblem, seconds: float = 10.0, known: Placements | None = None, relaxed: bool = False
) -> Optimum:
    """The placements of greatest predicted throughput, searched for at most `seconds`.

    `known` placements make the search shorter, and are the answer when it finds none better in time. `relaxed` drops
    that y and z are whole: a quick bound, with no placements.
    """
    floor = throughput_model.predict(known, problem.devices, problem.costs).throughput if known else 0.0
    modes = [(d, lanes) for d in problem.devices for lanes in problem.lane_counts(d) if _pays(problem, d, lanes)]
    seats = [seat for i, mode in enumerate(modes) for seat in _seats(problem, i, *mode)]
    if {s.placement.member for s in seats} != set(problem.members):
        return Optimum(None, 0.0, 0.0)
    scale = 1 / _upper_bound(problem, modes, seats)
    rows = _constraints(problem, modes, seats, scale)
    n, k = len(seats), len(modes)
    columns = 1 + 2 * n + k  # X, f, y, z
    objective = np.zeros(columns)
    objective[0] = -1.0
    whole = np.concatenate([np.zeros(1 + n), np.full(n + k, 0.0 if relaxed else 1.0)])
    lower, upper = np.zeros(columns), np.ones(columns)
    lower[0] = min(1.0, floor * scale * (1 - GAP))
    rooms = [
        CapacityConstraint(
            [1 + n + i for i in inside], [seats[i].bytes for i in inside], d.memory - lanes * problem.costs.base(d)
        )
        for mode, (d, lanes) in enumerate(modes)
        for inside in [[i for i, s in enumerate(seats) if s.mode == mode]]
    ]
    result = solve(objective, whole, lower, upper, rows, rooms, seconds, GAP)
    if result.infeasible and known is None:
        return Optimum(None, 0.0, 0.0)
    ceiling = float("inf") if result.bound is None else -result.bound / scale
    placements, throughput = known, floor
    if result.x is not None and not relaxed:
        found = _read(seats, result.x[1 : 1 + n], result.x[1 + n : 1 + 2 * n])
        then = throughput_model.predict(found, problem.devices, problem.costs).throughput
        if known is None or then > floor:
            placements, throughput = found, then
    return Optimum(placements, throughput, max(ceiling, throughput))


def _upper_bound(problem: AllocationProblem, modes: list[tuple[Device, int]], seats: list[_Instance]) -> float:
    """Samples per second that nothing exceeds: of the slowest member, had it all devices, or its one, for itself."""
    speeds: dict[str, dict[str, float]] = {m: {} for m in problem.members}
    for s in seats:
        mine, device = speeds[s.placement.member], s.placement.device
        lanes = modes[s.mode][1] if problem.replicas else 1
        mine[device] = max(mine.get(device, 0.0), lanes / s.seconds)
    return min(sum(mine.values()) if problem.replicas else max(mine.values()) for mine in speeds.values())


def _pays(problem: AllocationProblem, device: Device, lanes: int) -> bool:
    """Return whether cutting `device` in `lanes` can be quicker than leaving it whole.

    It cannot where no member was measured on such a part: `Costs` takes it to be as much slower as it is smaller. Nor
    where the lanes' own bytes are more than there are. Any other cut must be in the program, or what it finds is no
    bound on plans that use the cut.
    """
    if lanes == 1:
        return True
    room = lanes * problem.costs.base(device) < device.memory
    return room and any(problem.costs.measured(m, device, lanes) for m in problem.members)


def _seats(problem: AllocationProblem, mode: int, device: Device, lanes: int) -> Iterable[_Instance]:
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
    problem: AllocationProblem, modes: list[tuple[Device, int]], seats: list[_Instance], scale: float
) -> ConstraintRows:
    n = len(seats)
    f, y, z = 1, 1 + n, 1 + 2 * n  # where each kind of column begins
    of_member: dict[str, list[int]] = defaultdict(list)
    of_lane: dict[tuple[int, int], list[int]] = defaultdict(list)
    of_home: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    of_device: dict[str, list[int]] = defaultdict(list)
    for i, s in enumerate(seats):
        of_member[s.placement.member].append(i)
        of_lane[s.mode, s.placement.lane].append(i)
        of_home[s.placement.member, s.mode, s.placement.lane].append(i)
        of_device[s.placement.device].append(i)
    rows = ConstraintRows()
    for member in problem.members:
        rows.add([(0, 1.0), *((f + i, -scale / seats[i].seconds) for i in of_member[member])], 0.0)
        rows.add([(y + i, -1.0) for i in of_member[member]], -1.0)
        if not problem.replicas:
            rows.add([(y + i, 1.0) for i in of_member[member]], 1.0)
    for (mode, _), inside in of_lane.items():
        rows.add([*((f + i, 1.0) for i in inside), (z + mode, -1.0)], 0.0)
        rows.add([*((y + i, -1.0) for i in inside), (z + mode, 1.0)], 0.0)  # a lane left empty is not a lane
    for (_, mode, _), inside in of_home.items():
        rows.add([*((y + i, 1.0) for i in inside), (z + mode, -1.0)], 0.0)
    for i, s in enumerate(seats):  # no more time than the ceiling of X could use: a tighter program
        rows.add([(f + i, 1.0), (y + i, -min(1.0, s.seconds / scale))], 0.0)
    for device in problem.devices:
        ways = [k for k, (d, _) in enumerate(modes) if d is device]
        # in parts of the device's memory
        share = 1 / max(1, device.memory)
        bases = [(z + k, modes[k][1] * problem.costs.base(device) * share) for k in ways]
        rows.add([*((y + i, seats[i].bytes * share) for i in of_device[device.name]), *bases], 1.0)
        rows.add([(z + k, 1.0) for k in ways], 1.0)
    return rows


def _read(seats: list[_Instance], shares: NDArray[np.float64], chosen: NDArray[np.float64]) -> Placements:
    """Placements of a solution: those chosen and used; of a member that is used nowhere, one."""
    picked = [i for i in range(len(seats)) if chosen[i] > 0.5]
    used = [i for i in picked if shares[i] > 1e-7]
    at_work = {seats[i].placement.member for i in used}
    used += [i for i in picked if seats[i].placement.member not in at_work]
    return canonical(seats[i].placement for i in used)
