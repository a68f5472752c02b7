"""Random small problems, and the exhaustive search that the others are held against."""

from __future__ import annotations

import itertools

import numpy as np

from ripieno.allocation import simulate
from ripieno.allocation.costs import Costs
from ripieno.allocation.problem import Placements, Problem
from ripieno.types import Device, Placement, Point, Profile

SIZES = (1, 8, 32, 128)


def random_problem(
    seed: int, devices: int, members: int, sizes: int, replicas: bool = False, tightness: float = 1.6
) -> Problem:
    """A problem like real ones: a fixed time a batch and one a sample, GPUs of two kinds and a slow CPU.

    Memory is drawn so that about `tightness` times what all members take lies on all devices.
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
                Point(b, float(start * np.sqrt(slow) + sample * slow * b), 0.0, int(1e6 * weights[i] * (40 + b)))
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
    return Problem(names, tuple(found), Costs(profiles), batch_sizes, replicas=replicas)


def exhaustive(problem: Problem) -> tuple[float, Placements | None]:
    """The best predicted throughput of all allocations there are, one lane a device; 0 when nothing fits."""
    options = [
        [None if size == 0 else Placement(m, d.name, size) for size in (0, *problem.sizes(m))]
        for d in problem.devices
        for m in problem.members
    ]
    if not problem.replicas:
        options = [
            [Placement(m, d.name, size) for d in problem.homes(m) for size in problem.sizes(m)] for m in problem.members
        ]
    best: tuple[float, Placements | None] = (0.0, None)
    for choice in itertools.product(*options):
        placements = tuple(p for p in choice if p is not None)
        if problem.allows(placements):
            loads = simulate.load(placements, problem.devices, problem.costs)
            if sum(1 / s for s in loads.seconds) > best[0]:
                best = max(best, (simulate.solve(loads).throughput, placements), key=lambda pair: pair[0])
    return best
