"""Random small problems, and the exhaustive search used as reference."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from ripieno.allocation import throughput_model
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.problem import AllocationProblem, Placements
from ripieno.profiles.devices import partition_kind
from ripieno.types import BatchProfile, Device, Placement, Profile

SIZES = (1, 8, 32, 128)


def random_problem(
    seed: int, devices: int, members: int, sizes: int, replicas: bool = False, tightness: float = 1.6
) -> AllocationProblem:
    """Return a realistic problem: fixed times per batch and per sample, two kinds of GPUs and a slow CPU.

    The memory of all devices is about `tightness` times that of all members.
    """
    generator = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(members)]
    batch_sizes = SIZES[:sizes]
    kinds = ["fast", "slow", "cpu-4-cores"]
    work = np.exp(generator.normal(0, 0.8, members))
    weights = np.exp(generator.normal(0, 0.7, members))
    profiles: dict[str, dict[str, Profile]] = {}
    for kind, (start, sample) in zip(kinds, [(4e-3, 1e-4), (6e-3, 3e-4), (1e-3, 4e-3)], strict=True):
        profiles[kind] = {}
        for i, name in enumerate(names):
            slow = work[i] * np.exp(generator.normal(0, 0.3))
            points = tuple(
                BatchProfile(b, float(start * np.sqrt(slow) + sample * slow * b), 0.0, int(1e6 * weights[i] * (40 + b)))
                for b in batch_sizes
            )
            profiles[kind][name] = Profile(name, kind, "onnx", points, base=int(5e6))
    total = sum(profiles["fast"][n].at(batch_sizes[min(1, sizes - 1)]).bytes for n in names)
    found = []
    for i in range(devices):
        kind = kinds[2] if i == devices - 1 else str(generator.choice(kinds[:2]))
        memory = int(5e6 + tightness * total / devices * np.exp(generator.normal(0, 0.4)))
        name = "cpu:0" if kind == kinds[2] else f"cuda:{i}"
        found.append(Device(name, kind, memory, (0, 1, 2, 3) if kind == kinds[2] else ()))
    return AllocationProblem(names, tuple(found), ProfileCosts(profiles), batch_sizes, replicas=replicas)


def with_lanes(problem: AllocationProblem, seed: int, lanes: int = 2) -> AllocationProblem:
    """Return `problem` with several workers per CPU: parts are measured too; some are worth it, some are not."""
    generator = np.random.default_rng([seed, 2])
    whole = "cpu-4-cores"
    profiles = dict(problem.costs.profiles)
    for count in (2, 4):
        kind = partition_kind(whole, count)
        assert kind is not None
        profiles[kind] = {
            m: dataclasses.replace(
                p,
                device=kind,
                points=tuple(
                    dataclasses.replace(x, seconds=x.seconds * float(generator.uniform(1, 1.5 * count)))
                    for x in p.points
                ),
            )
            for m, p in profiles[whole].items()
        }
    return dataclasses.replace(problem, costs=ProfileCosts(profiles), lanes=lanes)


def exhaustive(problem: AllocationProblem) -> tuple[float, Placements | None]:
    """Return the best predicted throughput of all allocations; 0 if nothing fits."""
    best: tuple[float, Placements | None] = (0.0, None)
    for counts in itertools.product(*(problem.lane_counts(d) for d in problem.devices)):
        lanes = [(d.name, lane) for d, count in zip(problem.devices, counts, strict=True) for lane in range(count)]
        for choice in itertools.product(*_options(problem, lanes)):
            placements = tuple(p for p in choice if p is not None)
            used = {(p.device, p.lane) for p in placements}
            whole = all(lane in used or not any(d == lane[0] for d, _ in used) for lane in lanes)
            if whole and problem.allows(placements):
                loads = throughput_model.workload(placements, problem.devices, problem.costs)
                if sum(1 / s for s in loads.seconds) > best[0]:
                    best = max(best, (throughput_model.solve(loads).throughput, placements), key=lambda pair: pair[0])
    return best


def _options(problem: AllocationProblem, lanes: list[tuple[str, int]]) -> list[list[Placement | None]]:
    """Return the options: per worker and member with replicas, per member without."""
    if problem.replicas:
        return [
            [None, *(Placement(m, name, size, lane) for size in problem.sizes(m))]
            for name, lane in lanes
            for m in problem.members
        ]
    return [
        [Placement(m, name, size, lane) for name, lane in lanes for size in problem.sizes(m)] for m in problem.members
    ]


def best_of_all(problem: AllocationProblem, most: int = 20_000_000) -> float | None:
    """Return the result of `exhaustive` for larger problems, by tables over every allocation.

    Without replicas, devices are independent for a given assignment of members. With replicas, each device has a table
    of its non-dominated contents. An array holds a bound for every combination; combinations are solved from the
    highest bound down, and their prices lower the bounds. None if there are more than `most` combinations.
    """
    return _with_replicas(problem, most) if problem.replicas else _without_replicas(problem)


def _contents(problem: AllocationProblem, device: Device, members: list[str]) -> list[tuple[Placement, ...]]:
    """Return all placements of all `members` on `device` within memory."""
    sizes = [[Placement(m, device.name, size) for size in problem.sizes(m)] for m in members]
    return [c for c in itertools.product(*sizes) if problem.fits(c)]


def _subsets(problem: AllocationProblem, device: Device) -> list[list[str]]:
    free = [m for m in problem.members if device in problem.allowed_devices(m)]
    return [list(s) for n in range(len(free) + 1) for s in itertools.combinations(free, n)]


def _without_replicas(problem: AllocationProblem) -> float:
    seconds: dict[tuple[str, frozenset[str]], float] = {}
    for device in problem.devices:
        for members in _subsets(problem, device):
            totals = [
                sum(throughput_model.workload(c, problem.devices, problem.costs).seconds)
                for c in _contents(problem, device, members)
            ]
            seconds[device.name, frozenset(members)] = min(totals, default=np.inf)
    best = np.inf
    for assigned in itertools.product([d.name for d in problem.devices], repeat=len(problem.members)):
        held = {d.name: frozenset(m for m, a in zip(problem.members, assigned, strict=True) if a == d.name)
                for d in problem.devices}  # fmt: skip
        best = min(best, max(seconds[name, members] for name, members in held.items()))
    return 0.0 if np.isinf(best) else 1 / best


def _with_replicas(problem: AllocationProblem, most: int) -> float | None:
    tables = []
    for device in problem.devices:
        contents = [c for members in _subsets(problem, device) for c in _contents(problem, device, members)]
        speeds = np.array([[_speed(c, m, problem) for m in problem.members] for c in contents])
        keep = [
            i for i in range(len(contents))
            if not ((speeds >= speeds[i]).all(1) & ((speeds > speeds[i]).any(1) | (np.arange(len(contents)) < i))).any()
        ]  # fmt: skip
        tables.append(([contents[i] for i in keep], speeds[keep]))
    shape = tuple(len(contents) for contents, _ in tables)
    if np.prod(shape, dtype=float) > most:
        return None
    bound = np.full(shape, np.inf)

    def lower(prices: np.ndarray) -> None:
        each = [(speeds * prices).max(1) for _, speeds in tables]
        np.minimum(bound, sum(np.ix_(*each)), out=bound)

    for i in range(len(problem.members)):
        lower(np.eye(len(problem.members))[i])
    best = 0.0
    while bound.max() > best * (1 + 1e-9):
        index = np.unravel_index(int(bound.argmax()), shape)
        placements = tuple(p for (contents, _), i in zip(tables, index, strict=True) for p in contents[i])
        found = throughput_model.predict(placements, problem.devices, problem.costs)
        best = max(best, found.throughput)
        lower(np.array([found.prices[m] for m in problem.members]))
        bound[index] = min(bound[index], found.throughput)
    return best


def _speed(placements: tuple[Placement, ...], member: str, problem: AllocationProblem) -> float:
    loads = throughput_model.workload(placements, problem.devices, problem.costs)
    return sum(1 / s for m, s in zip(loads.members, loads.seconds, strict=True) if m == member)
