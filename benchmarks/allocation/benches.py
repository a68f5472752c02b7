"""Benches needed: plan by model and confirm, against algorithm 1 from worst-fit, on real networks and real benches.

    python benchmarks/allocation/benches.py [--quick]

Ensembles of 4, 7 and 12 residual networks on this machine's cores, each a device with a memory cap that binds. Every
method benches by the real engine; what each ends with is measured again, in turns, and compared as ratios within a
turn (medians and ranges). `batches only` tunes batch sizes from worst-fit and moves nobody: the baseline of the
follow-up paper. Writes benchmarks/results/allocation-benches.{json,txt}. Target: at least algorithm 1's throughput with
a tenth of its benches.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from setting import Setting, described, setting

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.allocation import matrix, simulate
from ripieno.allocation.confirm import confirm
from ripieno.allocation.plan import Options, by_model
from ripieno.allocation.problem import canonical
from ripieno.allocation.refine import CachedBench, Refined, refine

MANY = 10_000


def methods(held: Setting, most: int) -> dict[str, tuple[Refined, float]]:
    """What each method ends with, and how long it took."""
    problem, found = held.problem, {}
    planned = by_model(problem, Options())
    start = canonical(planned.start or planned.best)

    def timed(name: str, result: Refined, begin: float) -> None:
        found[name] = (result, time.perf_counter() - begin)

    begin = time.perf_counter()
    timed("worst-fit", refine(start, problem.devices, problem.batch_sizes, held.bench, 0), begin)
    begin = time.perf_counter()
    only = refine(
        start, problem.devices, problem.batch_sizes, held.bench, most,
        fits=problem.fits, neighbours=lambda p: matrix.batches(p, problem),
    )  # fmt: skip
    timed("batches only", only, begin)
    begin = time.perf_counter()
    paper = refine(start, problem.devices, problem.batch_sizes, held.bench, most, fits=problem.fits)
    timed("algorithm 1", paper, begin)
    begin = time.perf_counter()
    bench = CachedBench(held.bench, max(3, paper.benches // 10))
    planned = by_model(problem, Options())
    timed("model, confirmed", confirm([start, canonical(planned.best)], problem, bench), begin)
    return found


def main() -> None:
    """Run every method on every ensemble, then measure their ends in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 networks, short benches")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one bench")
    parser.add_argument("--most", type=int, default=400, help="benches of a method")
    parser.add_argument("--devices", default="cpu:2")
    options = parser.parse_args()
    rounds, seconds, counts = (3, 0.1, (4,)) if options.quick else (options.rounds, options.seconds, (4, 7, 12))
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder, setting(Path(folder), count, options.devices, seconds) as held:
            found = methods(held, 40 if options.quick else options.most)
            turns = [
                {name: held.bench(result.placements).throughput for name, (result, _) in found.items()}
                for _ in range(rounds)
            ]
            for name, (result, took) in found.items():
                ratios = [turn[name] / turn["algorithm 1"] for turn in turns]
                problem = held.problem
                rows.append(
                    {
                        "networks": count,
                        "method": name,
                        "benches": result.benches,
                        "seconds": took,
                        "images/s": float(np.median([turn[name] for turn in turns])),
                        "x algorithm 1": float(np.median(ratios)),
                        "range": f"{min(ratios):.2f}-{max(ratios):.2f}",
                        "predicted": simulate.predict(result.placements, problem.devices, problem.costs).throughput,
                        "memory": described(result.placements, problem.devices, problem.costs),
                    }
                )
    note = "images/s and ratios: medians of turns, each method once a turn"
    record("allocation-benches", {"rounds": rounds, "bench seconds": seconds, "devices": options.devices}, rows, note)


if __name__ == "__main__":
    main()
