"""Efficiency: throughput of the engine against the best hand-tuned loop, in alternating turns.

    python benchmarks/engine/efficiency.py [--quick] [--worker-batch 64]

Four networks (32x32x3, 100 classes, 7 to 92 million multiply-adds), ONNX Runtime, float32. Takes five minutes; writes
benchmarks/results/engine-efficiency{,-batch-N}.{json,txt}. Targets: 0.98 of the floor on batches of 64 and on single
samples with 64 in flight; with one batch outstanding at most 1.1 times the ideal split over the cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from floor import ProcessFloor, ThreadFloor, cpu_seconds
from networks import lay_out, write_members
from record import record

from ripieno.engine import Engine, bench


def main() -> None:
    """Measure in turns, report medians of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short windows, few rounds")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--worker-batch", type=int, default=0, help="largest batch of a worker; 0: the floor's best")
    options = parser.parse_args()
    rounds, seconds = (3, 0.4) if options.quick else (options.rounds, options.seconds)
    cores = len(os.sched_getaffinity(0))
    loads = {"64-image requests, 4 in flight": (64, 4), "single images, 64 in flight": (1, 64), "single, 8": (1, 8)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        members, _ = write_members(Path(folder))
        groups = [range(len(members))] * cores
        for isolation, kind in (("thread", ThreadFloor), ("process", ProcessFloor)):
            floor = kind(lay_out(Path(folder), members, groups, 64, cores), cores)
            tuned = max((8, 16, 32, 64), key=lambda batch, floor=floor: floor.run(batch, seconds))
            bundle = lay_out(Path(folder), members, groups, options.worker_batch or tuned, cores)
            with Engine(bundle, isolation=isolation) as engine:
                ratios: dict[str, list[tuple[float, float, float]]] = {name: [] for name in loads}
                for _ in range(rounds):
                    for name, (batch, in_flight) in loads.items():
                        used = cpu_seconds()
                        low = floor.run(tuned, seconds)
                        between, answered = cpu_seconds(), engine.stats().samples
                        result = bench(bundle, engine=engine, seconds=seconds, batch=batch, in_flight=in_flight)
                        answered = engine.stats().samples - answered
                        effort = (answered / (cpu_seconds() - between)) / (low * seconds / (between - used))
                        ratios[name].append((low, result.throughput, result.p50, effort))
                for name, taken in ratios.items():
                    low, high, p50, effort = np.median(taken, axis=0)
                    shares = [b / a for a, b, *_ in taken]
                    rows.append(
                        {
                            "isolation": isolation,
                            "load": name,
                            "batch": tuned,
                            "floor /s": low,
                            "engine /s": high,
                            "share": float(np.median(shares)),
                            "from": min(shares),
                            "to": max(shares),
                            "per CPU s": effort,
                            "p50 ms": p50 * 1e3,
                        }
                    )
                splits = []
                for _ in range(rounds):
                    alone = 64 / floor.run(tuned, seconds)  # all cores busy, nothing lost
                    result = bench(bundle, engine=engine, seconds=seconds, batch=64, in_flight=1)
                    splits.append((alone, result.p50))
                alone, p50 = np.median(splits, axis=0)
                rows.append(
                    {
                        "isolation": isolation,
                        "load": "one batch of 64 outstanding",
                        "ideal ms": alone * 1e3,
                        "p50 ms": p50 * 1e3,
                        "x ideal": float(np.median([b / a for a, b in splits])),
                    }
                )
            floor.close()
    settings = {"rounds": rounds, "seconds": seconds, "worker batch": options.worker_batch or "as the floor's"}
    name = "engine-efficiency" + (f"-batch-{options.worker_batch}" if options.worker_batch else "")
    record(name + "-quick" * options.quick, settings, rows)


if __name__ == "__main__":
    main()
