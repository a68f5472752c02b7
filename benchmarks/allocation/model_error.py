"""How far the model is off: predicted against measured throughput and memory of random allocations.

    python benchmarks/allocation/model_error.py [--quick]

Random allocations of 4 and 7 residual networks: on the CPU cut in devices of one core (some with replicas), and on the
CPU as one device of one or more lanes. Throughput is measured by the real engine with lanes in threads; memory of a few
with lanes in processes, as the largest resident size of each lane. Writes
benchmarks/results/allocation-model-error.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from setting import Setting, setting

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.allocation import simulate
from ripieno.allocation.problem import Placements, Problem, canonical
from ripieno.engine import Engine, bench
from ripieno.types import Bundle, Placement


def random_placements(problem: Problem, dice: np.random.Generator) -> Placements:
    """Every member on one to all of the lanes there are, in random batches; lanes are cut at random."""
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


def memory_errors(held: Setting, chosen: list[Placements]) -> list[float]:
    """Largest resident bytes of each lane's process as a share of what was planned for it."""
    ratios = []
    costs, by_name = held.problem.costs, held.problem.by_name
    for placements in chosen:
        first = held.members[0]
        bundle = Bundle(
            held.ensemble, held.allocation(placements), tuple(held.members), first.input, first.classes, "onnx",
            held.folder,
        )  # fmt: skip
        with Engine(bundle, isolation="process") as engine:
            bench(bundle, engine=engine, seconds=0.3, batch=64)
            for lane in engine.stats().lanes:
                device = by_name[lane.device]
                inside = [p for p in placements if (p.device, p.lane) == (lane.device, lane.lane)]
                planned = costs.base(device) + sum(costs.bytes(p.member, device, p.batch_size) for p in inside)
                ratios.append(_peak(lane.process) / planned)
    return ratios


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def main() -> None:
    """Measure, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few allocations, short benches")
    parser.add_argument("--allocations", type=int, default=30, help="of each ensemble on each kind of devices")
    parser.add_argument("--seconds", type=float, default=0.7)
    options = parser.parse_args()
    count, seconds, ensembles = (4, 0.15, (4,)) if options.quick else (options.allocations, options.seconds, (4, 7))
    rows, errors, shares = [], [], []
    dice = np.random.default_rng(0)
    for networks in ensembles:
        for devices, lanes in (("cpu:2", 1), ("cpu", 2)):
            with (
                tempfile.TemporaryDirectory() as folder,
                setting(Path(folder), networks, devices, seconds, None, lanes) as held,
            ):
                problem = held.problem
                chosen = [random_placements(problem, dice) for _ in range(count)]
                signed = []
                for placements in chosen:
                    predicted = simulate.predict(placements, problem.devices, problem.costs).throughput
                    signed.append(predicted / held.bench(placements).throughput - 1)
                taken = memory_errors(held, chosen[: 2 if options.quick else 6])
            errors += signed
            shares += taken
            rows.append({"networks": networks, "devices": devices, **_figures(signed, taken)})
    rows.append({"networks": "all", "devices": "", **_figures(errors, shares)})
    note = "error: predicted / measured - 1; memory: largest resident bytes of a lane's process / planned"
    record("allocation-model-error", {"bench seconds": seconds}, rows, note)


def _figures(signed: list[float], taken: list[float]) -> dict[str, object]:
    size = np.abs(signed)
    return {
        "allocations": len(signed),
        "median error": f"{np.median(size):.1%}",
        "90 %": f"{np.quantile(size, 0.9):.1%}",
        "worst": f"{size.max():.1%}",
        "bias": f"{np.median(signed):+.1%}",
        "memory": f"{np.median(taken):.2f}",
        "most": f"{max(taken):.2f}",
    }


if __name__ == "__main__":
    main()
