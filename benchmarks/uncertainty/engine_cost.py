"""Cost of outputs of uncertainty in the engine: the same requests with and without them, in alternating turns.

    python benchmarks/uncertainty/engine_cost.py [--quick]

Four networks (32x32x3, 100 classes, 7 to 92 million multiply-adds), ONNX Runtime, two thread workers. A request asks
for probabilities alone, or for the prediction set, entropy, mutual information, unusual and abstain, too. They are
computed when it is answered. Writes benchmarks/results/uncertainty-engine-cost{,-quick}.{json,txt}.
Target: less than 2 % of the throughput.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from networks import SHAPE, lay_out, write_members
from record import record

from ripieno.engine import Engine
from ripieno.tasks.uncertainty_outputs import UncertaintyOutputs
from ripieno.types import AbstainRule, Coverage

LOADS = {"64-image requests, 4 in flight": (64, 4), "single images, 64 in flight": (1, 64)}


def throughput(engine: Engine, batch: int, in_flight: int, seconds: float, outputs: UncertaintyOutputs | None) -> float:
    """Return the samples per second; with `outputs` each request asks for all of them."""
    images = np.random.default_rng(0).integers(0, 256, (batch, *SHAPE), dtype=np.uint8)
    waiting: deque = deque()
    answered, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        while len(waiting) < in_flight:
            waiting.append(engine.submit(images, disagreement=outputs is not None))
        answer = waiting.popleft().result()
        answered += batch
        for name in outputs.names if outputs else ():
            outputs.compute(name, answer.predictions, disagreement=answer.disagreement)
    taken = time.perf_counter() - began
    for future in waiting:
        future.result()
    return answered / taken


def main() -> None:
    """Measure in turns, report the median of paired ratios and its 95 % interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short windows, few rounds")
    options = parser.parse_args()
    rounds, seconds = (6, 0.4) if options.quick else (40, 1.0)
    cores = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        members, _ = write_members(Path(folder))
        bundle = lay_out(Path(folder), members, [range(len(members))] * cores, 32, cores)
        ensemble = dataclasses.replace(
            bundle.ensemble,
            coverage=(Coverage(0.9, "lac", (0.95,), 1000),),
            abstain=AbstainRule(0.02, 0.5, 1000),
            unusual=tuple(np.linspace(0, 1, 101).tolist()),
        )
        outputs = UncertaintyOutputs(ensemble, bundle.task)
        with Engine(bundle, isolation="thread") as engine:
            for load, (batch, in_flight) in LOADS.items():
                speeds = np.empty((rounds, 2))
                for turn in range(rounds):
                    for way in (0, 1) if turn % 2 else (1, 0):
                        asked = outputs if way else None
                        speeds[turn, way] = throughput(engine, batch, in_flight, seconds, asked)
                change = 100 * (speeds[:, 1] / speeds[:, 0] - 1)
                rows.append(
                    {
                        "load": load,
                        "without /s": float(np.median(speeds[:, 0])),
                        "with /s": float(np.median(speeds[:, 1])),
                        "change %": round(float(np.median(change)), 2),
                        "+-": round(float(1.96 * change.std(ddof=1) / rounds**0.5), 2),
                    }
                )
    record("uncertainty-engine-cost" + "-quick" * options.quick, {"rounds": rounds, "seconds": seconds}, rows)


if __name__ == "__main__":
    main()
