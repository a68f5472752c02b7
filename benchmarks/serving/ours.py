"""The server against the floor of its backend: A B A B in one run, client on the same cores.

    python benchmarks/serving/ours.py [--quick] [--wider 1.3]

The engine's four networks (32x32x3, 100 classes), ONNX Runtime, float32, lanes in threads and in processes, in
batches as large as are best for the floor. With `--wider` networks have so many times the filters: the same requests
cost more computing, and what the server adds weighs less. Writes
benchmarks/results/serving-ours{,-wider}.{json,txt}. Targets: 0.97 of the floor with 64 single images in flight and on
64-image requests, 0.94 with 8 in flight.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "peers"))
from client import LOADS, Client
from floor import ProcessFloor, answers
from networks import FOUR, Size, lay_out, write_members
from record import record
from servers import ours

from ripieno import files


def main() -> None:
    """Measure in turns, report medians of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short windows, few rounds")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--wider", type=float, default=1.0)
    options = parser.parse_args()
    rounds, seconds = (3, 0.7) if options.quick else (options.rounds, options.seconds)
    cores = len(os.sched_getaffinity(0))
    images = np.random.default_rng(0).integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sizes = [Size(round(options.wider * size.width), size.blocks) for size in FOUR]
        members, _ = write_members(Path(folder), sizes)
        seats = [range(len(members))] * cores
        bundle = lay_out(Path(folder), members, seats, 64, cores)
        client = Client(images, answers(bundle, images))
        floor = ProcessFloor(bundle, cores)
        tuned = max((8, 16, 32, 64), key=lambda batch: floor.run(batch, seconds))
        files.write_json(Path(folder) / "bundle.json", lay_out(Path(folder), members, seats, tuned, cores))
        for isolation in ("thread", "process"):
            with ours(Path(folder), isolation) as running:
                running.wait(client)
                for load in LOADS:
                    client.ask(running.server, load, 0.3)
                taken = {load: [] for load in LOADS}
                for _ in range(rounds):
                    for load in LOADS:
                        low = floor.run(tuned, seconds)
                        seen = client.ask(running.server, load, seconds)
                        taken[load].append((low, seen.throughput, seen.p50, seen.p99))
                memory = running.memory()
            for load, numbers in taken.items():
                low, high, p50, p99 = np.median(numbers, axis=0)
                shares = [b / a for a, b, *_ in numbers]
                rows.append(
                    {
                        "isolation": isolation,
                        "load": load.name,
                        "floor /s": low,
                        "server /s": high,
                        "share": float(np.median(shares)),
                        "from": min(shares),
                        "to": max(shares),
                        "p50 ms": p50,
                        "p99 ms": p99,
                        "MiB": memory,
                    }
                )
        floor.close()
        client.close()
    settings = {"rounds": rounds, "seconds": seconds, "wider": options.wider, "floor batch": tuned}
    record("serving-ours" + "-wider" * (options.wider > 1) + "-quick" * options.quick, settings, rows)


if __name__ == "__main__":
    main()
