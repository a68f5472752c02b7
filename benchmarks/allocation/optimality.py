"""Distance to the optimum: worst-fit, algorithm 1, matrix greedy and the program against full enumeration.

    python benchmarks/allocation/optimality.py [--quick] [--instances N]

Random problems have up to 4 devices, 5 members and 4 batch sizes. Memory is tight in most; in a third it is so tight
that worst-fit may fail where a solution exists. The throughput model evaluates them (no network runs). Half of them
allow replicas. Writes benchmarks/results/allocation-optimality.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.allocation import placement_milp, throughput_model
from ripieno.allocation.hill_climbing import hill_climb, longest_processing_time_first
from ripieno.allocation.problem import AllocationProblem, Placements
from ripieno.allocation.refine import refine
from ripieno.allocation.worst_fit import worst_fit
from ripieno.errors import AllocationError
from tests.allocation.instances import best_of_all, random_problem

Solver = Callable[[AllocationProblem], Placements | None]


def first_fit(problem: AllocationProblem) -> Placements | None:
    """Run worst-fit in batches of 8, or of the largest smaller size that fits."""
    for size in sorted((s for s in problem.batch_sizes if s <= 8), reverse=True):
        try:
            return worst_fit(problem.members, problem.devices, problem.costs, size)
        except AllocationError:
            continue
    return None


def algorithm_1(problem: AllocationProblem) -> Placements | None:
    """Run the paper's algorithm 1 from worst-fit, without a limit on benchmarks."""
    start = first_fit(problem)
    if start is None:
        return None
    bench = lambda p: speed(p, problem)  # noqa: E731
    return refine(start, problem.devices, problem.batch_sizes, bench, 10**9, fits=problem.fits).placements


def matrix_greedy(problem: AllocationProblem) -> Placements | None:
    """Climb from worst-fit at each batch size and from longest-first; if none fits, from the program's result."""
    starts = [longest_processing_time_first(problem)]
    for size in problem.batch_sizes:
        try:
            starts.append(worst_fit(problem.members, problem.devices, problem.costs, size))
        except AllocationError:
            continue
    starts = [s for s in starts if s] or [program(problem)]
    return max((hill_climb(s, problem) for s in starts if s), key=lambda p: speed(p, problem), default=None)


def program(problem: AllocationProblem) -> Placements | None:
    """Solve the mixed-integer program."""
    return placement_milp.solve_optimum(problem, 60).placements


TIGHT = (0.95, 1.1, 1.3, 1.6, 2.5, 5.0)
"""Memory of all devices, over the memory of the members in batches of the second size."""

SOLVERS: dict[str, Solver] = {
    "worst-fit": first_fit,
    "algorithm 1": algorithm_1,
    "matrix greedy": matrix_greedy,
    "program": program,
}


def speed(placements: Placements, problem: AllocationProblem) -> float:
    """Return the predicted samples per second."""
    return throughput_model.predict(placements, problem.devices, problem.costs).throughput


def draw(seed: int) -> AllocationProblem:
    """Return problem number `seed`, with random size, replicas and memory."""
    dice = np.random.default_rng([seed, 1])
    devices, members, sizes = int(dice.integers(1, 5)), int(dice.integers(1, 6)), int(dice.integers(1, 5))
    return random_problem(seed, devices, members, sizes, seed % 2 == 1, float(dice.choice(TIGHT)))


def main() -> None:
    """Solve every problem by every method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 instances")
    parser.add_argument("--instances", type=int, default=1000)
    options = parser.parse_args()
    count = 60 if options.quick else options.instances
    ratios: dict[tuple[str, bool], list[float]] = {(name, kind): [] for name in SOLVERS for kind in (False, True)}
    seconds = dict.fromkeys(SOLVERS, 0.0)
    unsolved = infeasible = 0
    for seed in range(count):
        problem = draw(seed)
        best = best_of_all(problem)
        if best is None:
            unsolved += 1
            continue
        infeasible += best == 0
        for name, solver in SOLVERS.items():
            begin = time.perf_counter()
            found = solver(problem)
            seconds[name] += time.perf_counter() - begin
            assert found is None or problem.allows(found), (seed, name)
            reached = speed(found, problem) if found else 0.0
            assert reached <= best * (1 + 1e-6), (seed, name, reached, best)
            if best:
                ratios[name, problem.replicas].append(reached / best)
    rows = []
    for (name, replicas), found in ratios.items():
        placed = [r for r in found if r > 0]
        rows.append(
            {
                "method": name,
                "replicas": "yes" if replicas else "no",
                "instances": len(found),
                "finds none": len(found) - len(placed),
                "mean": float(np.mean(placed)),
                "median": float(np.median(placed)),
                "worst": float(min(placed)),
                "best found": f"{np.mean(np.array(found) > 1 - 1e-5):.0%}",
                "ms each": 1000 * seconds[name] / (count - unsolved),
            }
        )
    note = (
        "mean, median and worst: throughput as a share of the best of all allocations, where the method finds any; "
        f"{infeasible} problems have no solution, by every method; {unsolved} were too large to enumerate"
    )
    name = "allocation-optimality-quick" if options.quick else "allocation-optimality"
    record(name, {"instances": count}, rows, note)


if __name__ == "__main__":
    main()
