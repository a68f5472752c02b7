"""Benchmarks needed: the model with confirmation, against algorithm 1 from worst-fit, on real networks.

    python benchmarks/allocation/benches.py [--quick] [--networks 4 7 12]

Ensembles of 4, 7 and 12 residual networks run on this machine's cores. Each core is a device with a binding memory cap
and pinned workers. Every method benchmarks with the real engine. The results are measured again in alternating turns
and compared as ratios within a turn (medians and ranges). `batches only` tunes the batch sizes of worst-fit and keeps
every member's device: it is the baseline of the follow-up paper. At the end each allocation runs in process workers
with enforced caps.

Target: at least algorithm 1's throughput with a tenth of its benchmarks. Takes about ten minutes. The rows of each
ensemble are saved at once; `--networks` replaces the rows of the given sizes and keeps the rest. Writes
benchmarks/results/allocation-benches.{json,txt}.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from setting import Setting, described, setting

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import RESULTS, record

from ripieno.allocation import neighbourhood
from ripieno.allocation.confirm import confirm
from ripieno.allocation.plan import AllocationOptions, plan_with_model
from ripieno.allocation.problem import canonical
from ripieno.allocation.refine import CachedBench, Refined, refine

SHARE = 10
"""Benchmarks of algorithm 1 for each one of the model. With only one benchmark, the model's own plan gets it."""


def methods(held: Setting, most: int, seconds: float) -> dict[str, tuple[Refined, float]]:
    """Return each method's result and the seconds it took."""
    problem, found = held.problem, {}
    planned = plan_with_model(problem, AllocationOptions())
    start = canonical(planned.start or planned.best)
    bench = functools.partial(held.bench, seconds=seconds)
    greedy = functools.partial(refine, start, problem.devices, problem.batch_sizes, bench, fits=problem.fits)

    def model() -> Refined:
        best = canonical(plan_with_model(problem, AllocationOptions()).best)
        most = max(1, found["algorithm 1"][0].benches // SHARE)
        return confirm([start, best][-most:], problem, CachedBench(bench, most))

    ways = {
        "worst-fit": lambda: greedy(0),
        "batches only": lambda: greedy(most, neighbours=lambda p: neighbourhood.batches(p, problem)),
        "algorithm 1": lambda: greedy(most),
        "model, confirmed": model,
    }
    for name, way in ways.items():
        begin = time.perf_counter()
        result = way()
        found[name] = (result, time.perf_counter() - begin)
        print(f"{len(held.members)} networks, {name}: {result.benches} benchmarks", file=sys.stderr, flush=True)
    return found


def compare(
    held: Setting, found: Mapping[str, tuple[Refined, float]], rounds: int, seconds: float
) -> list[dict[str, object]]:
    """Measure the methods' results in turns; return one row each."""
    turns = [
        {name: held.bench(r.placements, seconds).throughput for name, (r, _) in found.items()} for _ in range(rounds)
    ]
    rows = []
    for name, (result, took) in found.items():
        ratios = [turn[name] / turn["algorithm 1"] for turn in turns]
        gains = [turn[name] / turn["batches only"] for turn in turns]
        rows.append(
            {
                "networks": len(held.members),
                "method": name,
                "benches": result.benches,
                "of algorithm 1's": f"{result.benches / found['algorithm 1'][0].benches:.0%}",
                "seconds": took,
                "images/s": float(np.median([turn[name] for turn in turns])),
                "x algorithm 1": f"{np.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                "x batches only": f"{np.median(gains):.2f} ({min(gains):.2f}-{max(gains):.2f})",
                "predicted": held.predicted(result.placements),
                "memory planned": described(result.placements, held.problem.devices, held.problem.costs),
                "taken / planned": f"{max(held.memory(result.placements)):.2f}",
            }
        )  # fmt: skip
    return rows


def main() -> None:
    """Run every method on every ensemble, then measure the results in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 networks, short benchmarks, 20 at most")
    parser.add_argument("--networks", type=int, nargs="+", default=[4, 7, 12], help="sizes of ensembles")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.2, help="seconds of a method's benchmark; a turn takes 0.5")
    parser.add_argument("--most", type=int, default=300, help="benchmarks of a method at most")
    parser.add_argument("--devices", default="cpu:2")
    options = parser.parse_args()
    name, counts, rounds, seconds, last, most = (
        ("allocation-benches-quick", [4], 3, 0.1, 0.2, 20)
        if options.quick
        else ("allocation-benches", options.networks, options.rounds, options.seconds, 0.5, options.most)
    )
    settings = {"rounds": rounds, "bench seconds": seconds, "most": most, "devices": options.devices}
    rows = [row for row in kept(name, settings) if row["networks"] not in counts]
    for count in counts:
        with tempfile.TemporaryDirectory() as folder, setting(Path(folder), count, options.devices) as held:
            rows += compare(held, methods(held, most, seconds), rounds, last)
        rows.sort(key=lambda row: row["networks"])
        record(name, settings, rows, "images/s and ratios: medians (ranges) of turns, each method once a turn")


def kept(name: str, settings: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the rows of an earlier run with the same settings."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return found["rows"] if all(found.get(key) == value for key, value in settings.items()) else []


if __name__ == "__main__":
    main()
