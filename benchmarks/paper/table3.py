"""Table 3: predictions per second of 7 and of 14 networks on a CPU and 0 to 6 GPUs, before and after algorithm 1.

    python benchmarks/paper/table3.py [--quick] [--gpus 6] [--most 1000] [--devices cpu] [--rounds 7] [--tables FOLDER]

The model plans for absent GPUs from timm's published speeds of an RTX 3090 and a CPU (default folder: ../shared/data,
next to the checkout; or --tables FOLDER). The two ensembles are those of allocation/plateau.py. Each network runs on
one device as in the paper, by worst-fit and by algorithm 1 with the model in place of benchmarks; then by our
planner, the same way and with replicas. `--devices` of this machine are measured: every method benchmarks real ONNX
networks, and the results are then measured in turns. `cpu` is the paper's row of 0 GPUs, `cuda:0,cpu` its row of
one; an empty list measures nothing. Writes benchmarks/results/paper-table3.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "allocation"))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from benches import methods
from plateau import CPU, ENSEMBLES, GPU, TABLES
from record import record
from setting import SIZES, setting

from ripieno.allocation import throughput_model
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.plan import AllocationOptions, problem_of
from ripieno.allocation.problem import Placements
from ripieno.allocation.refine import refine
from ripieno.allocation.scale import scale
from ripieno.allocation.worst_fit import worst_fit
from ripieno.profiles import timm_profiles

PAPER = {
    7: ((11, 13), (35, 79), (40, 411), (290, 788), (325, 789), (375, 791), (355, 791)),
    14: ((20, 28), (40, 59), (150, 199), (167, 213), (176, 232), (198, 244), (203, 252)),
}
"""The paper's algorithms 1 and 2, by number of GPUs next to the CPU: worst-fit, and the greedy after it."""
NOTE = """images/s of the ensemble; "gain" is that of the greedy over worst-fit. The paper measured on V100s
and a CPU, with ensembles that its searches chose for CIFAR-100 (7, B=80) and microfossils (14, B=375). Those networks
are not published, so the figures themselves are not comparable. Our GPU figures are predictions by the model from
published speeds of ImageNet networks on an RTX 3090 and 14 cores. Comparable are the largest gain of the greedy, and
the number of GPUs at the plateau. Measured rows use real networks of 5 to 100 million multiply-adds on this machine,
medians of turns."""


def planned(count: int, most: int, gpus: int, tables: Path) -> list[dict[str, object]]:
    """Return a row for each number of GPUs, by the model."""
    gpu = timm_profiles(tables / "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv", GPU.kind)
    cpu = timm_profiles(tables / "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv", CPU.kind)
    costs, names = ProfileCosts({GPU.kind: gpu, CPU.kind: cpu}), ENSEMBLES[count]
    counts = range(gpus + 1)
    single = scale(names, GPU, [CPU], costs, counts, AllocationOptions(replicas=False, lanes=1))
    many = scale(names, GPU, [CPU], costs, counts, AllocationOptions(lanes=1))
    rows = []
    for ours, more, (before, after) in zip(single, many, PAPER[count], strict=False):
        worst, greedy = greedily(names, ours.gpus, costs, most)
        rows.append(
            row(count, f"{ours.gpus}", "planned", (before, after), worst, greedy)
            | {"ours": ours.planned, "with replicas": more.planned}
        )  # fmt: skip
    return rows


def greedily(names: tuple[str, ...], gpus: int, costs: ProfileCosts, most: int) -> tuple[float, float]:
    """Predict worst-fit, and algorithm 1 after it, by the model; evaluate at most `most` allocations."""
    devices = [type(GPU)(f"cuda:{i}", GPU.kind, GPU.memory) for i in range(gpus)] + [CPU]
    problem = problem_of(names, devices, costs, (), AllocationOptions(method="algorithm-1"))

    def speed(placements: Placements) -> float:
        return throughput_model.predict(placements, problem.devices, costs).throughput

    start = worst_fit(problem.members, problem.devices, costs, 8, smaller=problem.batch_sizes)
    found = refine(start, problem.devices, problem.batch_sizes, speed, most, fits=problem.fits)
    return found.start.throughput, found.measurement.throughput


def measured(count: int, devices: str, rounds: int, seconds: float, most: int) -> dict[str, object]:
    """Measure this machine; return its row."""
    with tempfile.TemporaryDirectory() as folder, setting(Path(folder), count, devices, room=None) as held:
        found = {name: result.placements for name, (result, _) in methods(held, most, seconds).items()}
        turns = [{name: held.bench(p, 2 * seconds).throughput for name, p in found.items()} for _ in range(rounds)]
        gpus = sum(d.type == "cuda" for d in held.problem.devices)
    median = {name: float(np.median([turn[name] for turn in turns])) for name in found}
    paper = PAPER[count][gpus] if gpus < len(PAPER[count]) else None
    return row(count, f"{gpus}", f"measured, {devices}", paper, median["worst-fit"], median["algorithm 1"]) | {
        "ours": median["model, confirmed"]
    }


def row(
    count: int, gpus: str, how: str, paper: tuple[int, int] | None, worst: float, greedy: float
) -> dict[str, object]:
    """Return the columns common to all rows."""
    published: Mapping[str, object] = {}
    if paper:
        published = {
            "paper, worst-fit": paper[0],
            "paper, greedy": paper[1],
            "paper, gain": f"{paper[1] / paper[0]:.2f}",
        }
    return {"networks": count, "GPUs": gpus, **published, "here": how} | {
        "worst-fit": worst,
        "algorithm 1": greedy,
        "gain": f"{greedy / worst:.2f}",
    }


def main() -> None:
    """Plan, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="7 networks, up to 2 GPUs, short benchmarks")
    parser.add_argument("--gpus", type=int, default=6, choices=range(7))
    parser.add_argument("--most", type=int, default=1000, help="allocations that algorithm 1 evaluates at most")
    parser.add_argument("--devices", nargs="*", default=["cpu"], help="devices of this machine, e.g. cpu cuda:0,cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="seconds of a benchmark; turns are twice as long")
    parser.add_argument("--tables", type=Path, default=TABLES)
    given = parser.parse_args()
    gpus, counts, rounds, seconds, benches = (
        (min(2, given.gpus), [7], 3, 0.1, 20)
        if given.quick
        else (given.gpus, [7, 14], given.rounds, given.seconds, 100)
    )
    rows: list[dict[str, object]] = []
    for count in counts:
        if given.tables.is_dir():
            rows += planned(count, given.most, gpus, given.tables)
        else:
            print(
                f"No tables in {given.tables}: planning is skipped. Pass their folder with --tables.", file=sys.stderr
            )
        rows += [measured(count, devices, rounds, seconds, benches) for devices in given.devices if count in SIZES]
    name = "paper-table3" + ("-quick" if given.quick else "")
    record(name, {"tables": "timm, RTX 3090 and i9-10940X", "rounds": rounds, "bench seconds": seconds}, rows, NOTE)


if __name__ == "__main__":
    main()
