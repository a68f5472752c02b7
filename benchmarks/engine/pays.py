"""Gain of allocation planning: the planned allocation against simple ones, on the four networks.

    python benchmarks/engine/pays.py [--quick]

All cores are one device. `one lane each`: one worker per network, in the usual batches of 8. `batch sizes only`: the
same workers, with batch sizes tuned by algorithm 1 on the engine's benchmark. `all in one lane`: worst-fit, the paper's
start. `planned`: by the model from profiles, confirmed on the benchmark. Then all are measured in turns: throughput
with enough requests of 64 images in flight, and the latency of one such request alone; ratios within a turn. Takes
three minutes. Writes benchmarks/results/engine-pays.{json,txt}.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from networks import lay_out, write_members
from record import record

from ripieno import backends
from ripieno.allocation import Measurement, plan
from ripieno.allocation.refine import refine
from ripieno.allocation.worst_fit import DEFAULT_BATCH_SIZE
from ripieno.engine import Engine, bench
from ripieno.engine.benchmark import BackendPool
from ripieno.profiles import local_devices, profile
from ripieno.profiles.devices import cpu_partitions
from ripieno.types import Allocation, Bundle, Placement

BATCH_SIZES = (1, 8, 16, 32, 64)
BASE = "one lane each"
Placements = tuple[Placement, ...]


def main() -> None:
    """Find each allocation, then measure all of them in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half a minute: few and short benchmarks, few turns")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.8, help="seconds of one measurement at the end")
    parser.add_argument("--most", type=int, default=60, help="benchmarks of the batch size tuning at most")
    options = parser.parse_args()
    rounds, seconds, most = (3, 0.25, 12) if options.quick else (options.rounds, options.seconds, options.most)
    window = 0.2 if options.quick else 0.4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        members, _ = write_members(folder)
        paths = {m.id: folder / "members" / m.id / "model.onnx" for m in members}
        blank = lay_out(folder, members, [range(len(members))], DEFAULT_BATCH_SIZE, 1)
        devices = local_devices("cpu")
        backend_pool = BackendPool(paths, "model.onnx", backends.load)

        def laid(placements: Placements) -> Bundle:
            return dataclasses.replace(blank, allocation=Allocation("pays", "bench", devices, placements))

        def measured(placements: Placements) -> Measurement:
            result = bench(laid(placements), seconds=window, isolation="thread", load=backend_pool.load)
            return Measurement(result.throughput, result.spread)

        ids, home = blank.ensemble.members, devices[0].name
        each = tuple(Placement(m, home, DEFAULT_BATCH_SIZE, lane) for lane, m in enumerate(ids))
        one = tuple(Placement(m, home, DEFAULT_BATCH_SIZE, 0) for m in ids)
        found: dict[str, tuple[Placements, int, float]] = {BASE: (each, 0, 0.0), "all in one lane": (one, 0, 0.0)}

        begin = time.perf_counter()
        tuned = refine(each, devices, BATCH_SIZES, measured, most, neighbours=other_batches)
        found["batch sizes only"] = (tuned.placements, tuned.benches, time.perf_counter() - begin)

        begin = time.perf_counter()
        measure = functools.partial(profile, batch_sizes=BATCH_SIZES, max_seconds=1.0 if options.quick else 4.0)
        profiles = {
            d.kind: {m.id: measure(paths[m.id], m, d) for m in members} for d in (*devices, *cpu_partitions(devices))
        }
        made = plan(blank.ensemble, devices, profiles, BATCH_SIZES, measured, 6 if options.quick else 20)
        found["planned"] = (made.placements, made.benches, time.perf_counter() - begin)

        turns = [
            {name: figures(laid(p), seconds, backend_pool.load) for name, (p, *_) in found.items()}
            for _ in range(rounds)
        ]
        backend_pool.close()
    rows = []
    for name, (placements, benches, took) in found.items():
        speed = [turn[name][0] / turn[BASE][0] for turn in turns]
        late = [turn[name][1] / turn[BASE][1] for turn in turns]
        rows.append(
            {
                "allocation": name,
                "images/s": float(np.median([turn[name][0] for turn in turns])),
                f"x {BASE}": float(np.median(speed)),
                "range": f"{min(speed):.2f}-{max(speed):.2f}",
                "one batch ms": float(np.median([turn[name][1] for turn in turns])) * 1e3,
                "latency x": float(np.median(late)),
                "benches": benches,
                "found in s": took,
                "lanes": in_words(placements),
            }
        )
    settings = {
        "rounds": rounds,
        "seconds": seconds,
        "bench seconds": window,
        "devices": f"{len(devices[0].cores)} cores",
    }
    record("engine-pays" + "-quick" * options.quick, settings, rows)


def figures(bundle: Bundle, seconds: float, load: Callable) -> tuple[float, float]:
    """Return samples per second under full load, and the median seconds of one request of 64 alone."""
    with Engine(bundle, isolation="thread", load=load) as engine:
        full = bench(bundle, engine=engine, seconds=seconds)
        alone = bench(bundle, engine=engine, seconds=seconds, in_flight=1)
    return full.throughput, alone.p50


def other_batches(placements: Placements):
    """Yield placements with another batch size for one placement."""
    for i, placement in enumerate(placements):
        for size in BATCH_SIZES:
            if size != placement.batch_size:
                yield (*placements[:i], dataclasses.replace(placement, batch_size=size), *placements[i + 1 :])


def in_words(placements: Placements) -> str:
    """Return the members and batch sizes of each worker, as text."""
    lanes = Counter(p.lane for p in placements)
    return "; ".join(" ".join(f"{p.member[:5]}@{p.batch_size}" for p in placements if p.lane == lane) for lane in lanes)


if __name__ == "__main__":
    main()
