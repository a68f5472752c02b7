"""Cost of temperatures in the engine: the same networks with and without them, in alternating turns.

    python benchmarks/engine/temperatures.py [--quick]

Four networks (32x32x3, 100 classes, 7 to 92 million multiply-adds), ONNX Runtime, two thread workers. Each network and
the ensemble have a temperature of 1.3, or none. Writes benchmarks/results/engine-temperatures{,-quick}.{json,txt}.
Target: less than 1 % of the throughput.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from networks import lay_out, write_members
from record import record

from ripieno.engine import Engine, bench

LOADS = {"64-image requests, 4 in flight": (64, 4), "single images, 64 in flight": (1, 64)}


def main() -> None:
    """Measure in turns, report the median of paired ratios and its standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short windows, few rounds")
    options = parser.parse_args()
    rounds, seconds = (4, 0.4) if options.quick else (24, 1.0)
    cores = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        members, _ = write_members(Path(folder))
        plain = lay_out(Path(folder), members, [range(len(members))] * cores, 32, cores)
        ensemble = dataclasses.replace(plain.ensemble, temperatures=(1.3,) * len(members), temperature=1.3)
        heated = dataclasses.replace(plain, ensemble=ensemble)
        with Engine(plain, isolation="thread") as without, Engine(heated, isolation="thread") as with_them:
            for load, (batch, in_flight) in LOADS.items():
                speeds = []
                for turn in range(rounds):
                    pair = [(plain, without), (heated, with_them)]
                    taken = [
                        bench(bundle, engine=engine, seconds=seconds, batch=batch, in_flight=in_flight).throughput
                        for bundle, engine in (pair if turn % 2 else pair[::-1])
                    ]
                    speeds.append(taken if turn % 2 else taken[::-1])
                table = np.array(speeds)
                change = 100 * (table[:, 1] / table[:, 0] - 1)
                rows.append(
                    {
                        "load": load,
                        "without /s": float(np.median(table[:, 0])),
                        "with /s": float(np.median(table[:, 1])),
                        "change %": round(float(np.median(change)), 2),
                        "+-": round(float(1.96 * change.std(ddof=1) / len(change) ** 0.5), 2),
                    }
                )
    record("engine-temperatures" + "-quick" * options.quick, {"rounds": rounds, "seconds": seconds}, rows)


if __name__ == "__main__":
    main()
