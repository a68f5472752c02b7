"""Error of the model: predicted against measured throughput and memory of random allocations.

    python benchmarks/allocation/model_error.py [--quick]

Random allocations of 4 and 7 residual networks run on the CPU cut into devices of one core (some with replicas), and on
the CPU as one device of one or more workers. The real engine measures throughput in turns with thread workers; the
quickest turn of an allocation counts, as in profiles. Memory of some allocations is measured with process workers under
their caps.

Other programs on the machine slow the benchmarks but not the profiles. The kernel reports how long workers waited for a
core that other threads held (`lost`). The errors are given as measured, and with the model given the remaining time of
each worker ("shared"). On an idle machine both are equal. Takes about five minutes; writes
benchmarks/results/allocation-model-error.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from setting import Seen, Setting, setting

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.allocation.problem import AllocationProblem, Placements, canonical
from ripieno.types import Placement

REQUEST = 64
"""Samples per request: the model ignores the cost of requests to threads that are no workers."""


def random_placements(problem: AllocationProblem, dice: np.random.Generator) -> Placements:
    """Place every member on one to all of the workers, with random batch sizes and worker counts."""
    lanes = []
    for device in problem.devices:
        count = int(dice.choice(problem.lane_counts(device)))
        lanes += [(device.name, lane) for lane in range(count)]
    placed = []
    for member in problem.members:
        some = int(dice.integers(1, len(lanes) + 1)) if dice.random() < 0.3 else 1
        size = int(dice.choice(list(problem.sizes(member))))
        placed += [Placement(member, lanes[i][0], size, lanes[i][1]) for i in dice.permutation(len(lanes))[:some]]
    return canonical(placed)


def measured(held: Setting, chosen: list[Placements], turns: int, seconds: float) -> list[list[dict[str, float]]]:
    """Return measured and predicted values for each of `chosen` and each turn."""
    found: list[list[dict[str, float]]] = [[] for _ in chosen]
    for _ in range(turns):
        for placements, mine in zip(chosen, found, strict=True):
            seen: Seen = held.see(placements, seconds, REQUEST)
            mine.append(
                {
                    "measured": seen.throughput,
                    "predicted": held.predicted(placements),
                    "shared": held.predicted(placements, seen.lost),
                    "lost": max(seen.lost.values()),
                }
            )
    return found


def main() -> None:
    """Measure, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few allocations, short benchmarks")
    parser.add_argument("--allocations", type=int, default=15, help="allocations per ensemble and kind of devices")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds of a benchmark")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    count, seconds, turns, ensembles = options.allocations, options.seconds, options.turns, (4, 7)
    if options.quick:
        count, seconds, turns, ensembles = 4, 0.2, 1, (4,)
    rows, every, shares = [], [], []
    dice = np.random.default_rng(0)
    for networks in ensembles:
        for devices, lanes in (("cpu:2", 1), ("cpu", 2)):
            with tempfile.TemporaryDirectory() as folder, setting(Path(folder), networks, devices, None, lanes) as held:
                chosen = [random_placements(held.problem, dice) for _ in range(count)]
                found = measured(held, chosen, turns, seconds)
                taken = [share for p in chosen[: 1 if options.quick else 4] for share in held.memory(p)]
            every += found
            shares += taken
            rows.append({"networks": networks, "devices": devices, **_figures(found, taken)})
            print(rows[-1], file=sys.stderr)
    rows.append({"networks": "all", "devices": "", **_figures(every, shares)})
    note = (
        "error: predicted / measured - 1, quickest turn; shared: the model given the workers' remaining time; "
        "lost: median share of time that others took; memory: resident bytes of a worker / planned, median and maximum"
    )
    name = "allocation-model-error-quick" if options.quick else "allocation-model-error"
    record(name, {"bench seconds": seconds, "turns": turns, "allocations seen": len(every)}, rows, note)


def _figures(found: list[list[dict[str, float]]], taken: list[float]) -> dict[str, object]:
    quickest = [max(turns, key=lambda t: t["measured"]) for turns in found]
    signed = np.array([t["predicted"] / t["measured"] - 1 for t in quickest])
    # losses differ per turn: the least disturbed turn says most about the model
    calmest = [min(turns, key=lambda t: t["lost"]) for turns in found]
    shared = np.array([t["shared"] / t["measured"] - 1 for t in calmest])
    return {
        "allocations": len(found),
        "median error": f"{np.median(abs(signed)):.1%}",
        "90 %": f"{np.quantile(abs(signed), 0.9):.1%}",
        "worst": f"{abs(signed).max():.1%}",
        "range": f"{signed.min():+.0%} to {signed.max():+.0%}",
        "shared: median": f"{np.median(abs(shared)):.1%}",
        "shared: worst": f"{abs(shared).max():.1%}",
        "bias": f"{np.median(shared):+.1%}",
        "lost": f"{np.median([t['lost'] for t in calmest]):.0%}",
        "memory": f"{np.median(taken):.2f}",
        "most": f"{max(taken):.2f}",
    }


if __name__ == "__main__":
    main()
