"""Seven networks on a GPU and the CPU: throughput of each planner's allocation, measured and predicted.

    python benchmarks/allocation/gpu.py [--quick] [--backend torch]

Residual networks of 0.1 to 3 billion multiply-adds on 64 x 64 images, with random weights, because only their cost
matters. One run uses all of the GPU's memory, one so little that members must overflow to the CPU (section 2.4).
Needs PyTorch with CUDA (or `--backend onnx` and onnxruntime-gpu) and exits with one message without it. Needs
neither Ray nor a network connection. Writes benchmarks/results/allocation-gpu.{json,txt}.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.allocation import AllocationOptions, Measurement, ProfileCosts, memory, plan, throughput_model
from ripieno.allocation.costs import ENGINE_OVERHEAD
from ripieno.allocation.problem import Placements
from ripieno.engine import AllocationBenchmark
from ripieno.errors import AllocationError, EngineError
from ripieno.profiles import cpu_partitions, local_devices, profile
from ripieno.types import Allocation, Device, Ensemble, Input, Member, Profile

INPUT = Input((64, 64, 3))
SHAPES = ((16, 1), (16, 2), (32, 1), (32, 2), (32, 4), (64, 1), (64, 2))
"""Width and blocks per stage of the seven networks."""
METHODS = (
    ("worst-fit", AllocationOptions(method="worst-fit")),
    ("algorithm 1", AllocationOptions(method="algorithm-1")),
    ("model, confirmed", AllocationOptions()),
)


def write_networks(folder: Path, backend: str, count: int) -> tuple[list[Member], dict[str, Path]]:
    """Write the networks; return the members and the files that `backend` runs."""
    from ripieno.models.build import build
    from ripieno.train.checkpoint import weights_bytes

    classes = tuple(f"class{i}" for i in range(100))
    members, paths = [], {}
    for index, (width, blocks) in enumerate(SHAPES[:count]):
        shape = {f"blocks_{stage}": blocks for stage in (1, 2, 3, 4)}
        name, configuration = f"{index:05d}-e001", {"width": width, "stem_filters": width, **shape}
        network = build("resnet", configuration, INPUT, len(classes))
        size = sum(p.numel() for p in network.parameters())
        member = Member(name, index, 1, "resnet", configuration, INPUT, classes, {}, size, 0.0)
        path = folder / name / "weights.safetensors"
        path.parent.mkdir()
        path.write_bytes(weights_bytes(network))
        if not backend.startswith("torch"):
            from ripieno.backends.export import export_onnx

            export_onnx(member, path, path.with_name("model.onnx"))
            path = path.with_name("model.onnx")
        members.append(member)
        paths[name] = path
    return members, paths


def find_devices(backend: str) -> tuple[Device, ...]:
    """Return the first GPU that `backend` can use, and the CPU. Exit with a message if there is no GPU."""
    try:
        found = local_devices("cuda", backend)
    except (AllocationError, EngineError, ImportError) as error:
        raise SystemExit(f"No GPU to benchmark: {error}") from None
    return found[0], *local_devices("cpu")


def main() -> None:
    """Profile, plan by every method, benchmark the results in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 networks, short benchmarks")
    parser.add_argument("--backend", default="torch", help="torch, torch-graphs, torch:bf16, onnx, ...")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="seconds of a benchmark")
    parser.add_argument("--most", type=int, default=100, help="benchmarks of algorithm 1 at most")
    parser.add_argument(
        "--cpu-only", action="store_true", help="test the script without a GPU, on two halves of the CPU"
    )
    options = parser.parse_args()
    count, rounds, seconds, most, sizes = 7, options.rounds, options.seconds, options.most, (1, 8, 32, 128)
    if options.quick:
        count, rounds, seconds, most, sizes = 3, 2, 0.2, 6, (1, 16)
    devices = local_devices("cpu:2") if options.cpu_only else find_devices(options.backend)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        members, paths = write_networks(Path(name), options.backend, count)
        kinds = {d.kind: d for d in (*devices, *cpu_partitions(devices, 2))}
        measure = functools.partial(
            profile, backend=options.backend, batch_sizes=sizes, max_seconds=2.0 if options.quick else 6.0
        )
        profiles = {kind: {m.id: measure(paths[m.id], m, d) for m in members} for kind, d in kinds.items()}
        costs = ProfileCosts(profiles, ENGINE_OVERHEAD)
        first = devices[0]
        half = costs.base(first) + sum(costs.bytes(m.id, first, sizes[-1]) for m in members) // 2
        for room, mine in (("all", first), ("half", dataclasses.replace(first, memory=min(half, first.memory)))):
            here = (mine, *devices[1:])
            rows += compare(members, paths, here, profiles, options.backend, rounds, seconds, most, room)
    note = "images/s: median of turns; error: predicted / measured - 1"
    stem = "allocation-gpu-quick" if options.quick or options.cpu_only else "allocation-gpu"
    record(stem, {"devices": ", ".join(d.kind for d in devices), "backend": options.backend}, rows, note)


def compare(
    members: Sequence[Member],
    paths: Mapping[str, Path],
    devices: tuple[Device, ...],
    profiles: Mapping[str, Mapping[str, Profile]],
    backend: str,
    rounds: int,
    seconds: float,
    most: int,
    room: str,
) -> list[dict[str, object]]:
    """Plan by each method with real benchmarks, measure the results in turns; return one row each."""
    ids = tuple(m.id for m in members)
    ensemble = Ensemble(f"of-{len(ids)}", ids, (1 / len(ids),) * len(ids), "hand", {}, {}, {})
    costs = ProfileCosts(profiles, ENGINE_OVERHEAD)
    made: dict[str, tuple[Allocation, float]] = {}
    by_id, batch = {m.id: m for m in members}, 128 if devices[0].type == "cuda" else 8
    with AllocationBenchmark(ensemble, by_id, paths, backend, seconds=seconds, batch=batch) as engine:

        def bench(placements: Placements) -> Measurement:
            result = engine.measure(Allocation("bench", ensemble.name, devices, placements))
            return Measurement(result.throughput, result.spread)

        for name, how in METHODS:
            begin = time.perf_counter()
            limit = max(1, made["algorithm 1"][0].benches // 10) if how.method == "model" else most
            found = plan(ensemble, devices, profiles, bench=bench, max_benches=limit, options=how)
            made[name] = (found, time.perf_counter() - begin)
            print(f"{room} memory, {name}: {found.benches} benchmarks", file=sys.stderr, flush=True)
        turns = [{name: bench(a.placements).throughput for name, (a, _) in made.items()} for _ in range(rounds)]
    rows = []
    for name, (found, took) in made.items():
        speed = float(np.median([turn[name] for turn in turns]))
        predicted = throughput_model.predict(found.placements, devices, costs).throughput
        ratio = np.median([turn[name] / turn["algorithm 1"] for turn in turns])
        members_of = [f"{len({p.member for p in found.placements if p.device == d.name})} on {d.name}" for d in devices]
        taken = memory.device_usage(found.placements, devices, costs)
        rows.append(
            {
                "memory": room,
                "method": name,
                "benches": found.benches,
                "seconds": took,
                "images/s": speed,
                "x algorithm 1": f"{ratio:.2f}",
                "predicted": predicted,
                "error": f"{predicted / speed - 1:+.0%}",
                "members": ", ".join(members_of),
                "planned": ", ".join(memory.format_bytes(taken[d.name]) for d in devices),
            }
        )
    return rows


if __name__ == "__main__":
    main()
