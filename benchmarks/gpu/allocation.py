"""Step allocation: 12 networks on a GPU and the CPU; throughput of each planner's allocation, measured and predicted.

Residual networks of 0.1 to 3 billion multiply-adds on 64 x 64 images, with random weights, because only their cost
matters. One run uses all of the GPU's memory, one so little that members must overflow to the CPU (section 2.4).
A dry run uses two halves of the CPU.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from kit import Options, Report, read_options, weights_path, write_networks

from ripieno import files
from ripieno.allocation import AllocationOptions, Measurement, ProfileCosts, memory, plan, throughput_model
from ripieno.allocation.costs import ENGINE_OVERHEAD
from ripieno.allocation.problem import Placements
from ripieno.engine import AllocationBenchmark
from ripieno.profiles import cpu_partitions, local_devices, profile
from ripieno.types import Allocation, Device, Ensemble, Input, Member, Profile

INPUT = Input((64, 64, 3))
BACKEND = "torch"
METHODS = (
    ("worst-fit", AllocationOptions(method="worst-fit")),
    ("algorithm 1", AllocationOptions(method="algorithm-1")),
    ("model, confirmed", AllocationOptions()),
)


def main() -> None:
    """Profile, plan by every method, benchmark the results in turns."""
    options = read_options()
    report = Report(options)
    folder = options.scratch / "allocation"
    members = write_networks(folder, options.shapes(3 if options.dry else 12), INPUT)
    paths = {m.id: weights_path(folder, m) for m in members}
    sizes, seconds = ((1, 8), 0.5) if options.dry else ((1, 8, 32), 1.5)
    devices = local_devices("cpu:2") if options.dry else (local_devices("cuda:0", BACKEND)[0], *local_devices("cpu"))
    kinds = {d.kind: d for d in (*devices, *cpu_partitions(devices, 2))}
    profiles: dict[str, dict[str, Profile]] = {}
    for kind, device in kinds.items():
        for member in members:
            # a step that is repeated takes the profiles that it has
            kept = folder / "profiles" / f"{kind}-{member.id}.json"
            if not kept.exists():
                measured = profile(
                    paths[member.id], member, device, BACKEND, batch_sizes=sizes, window=0.1, max_seconds=seconds
                )
                files.write_json(kept, measured)
            profiles.setdefault(kind, {})[member.id] = files.read_json(kept, Profile)
        print(f"profiled {len(members)} networks on {kind}, {options.left():.0f} s left", flush=True)
    costs = ProfileCosts(profiles, ENGINE_OVERHEAD)
    first = devices[0]
    half = costs.base(first) + sum(costs.bytes(m.id, first, sizes[-1]) for m in members) // 2
    for room, mine in (("all", first), ("half", dataclasses.replace(first, memory=min(half, first.memory)))):
        if options.left() < 60 and not options.dry:
            report.note("The time ended: repeat the step, which keeps its profiles.")
            return
        with report.case(memory=room):
            compare(options, report, members, paths, (mine, *devices[1:]), profiles, room)
    report.note("images/s: median of turns; error: predicted / measured - 1")


def compare(
    options: Options,
    report: Report,
    members: Sequence[Member],
    paths: Mapping[str, Path],
    devices: tuple[Device, ...],
    profiles: Mapping[str, Mapping[str, Profile]],
    room: str,
) -> None:
    """Plan by each method with real benchmarks, measure the results in turns; add one row each."""
    ids = tuple(m.id for m in members)
    ensemble = Ensemble(f"of-{len(ids)}", ids, (1 / len(ids),) * len(ids), "hand", {}, {}, {})
    costs = ProfileCosts(profiles, ENGINE_OVERHEAD)
    made: dict[str, tuple[Allocation, float]] = {}
    by_id, batch = {m.id: m for m in members}, 128 if devices[0].type == "cuda" else 8
    rounds, seconds, most = (2, 0.1, 3) if options.dry else (5, 0.4, 40)
    with AllocationBenchmark(ensemble, by_id, paths, BACKEND, seconds=seconds, batch=batch) as engine:

        def bench(placements: Placements) -> Measurement:
            result = engine.measure(Allocation("bench", ensemble.name, devices, placements))
            return Measurement(result.throughput, result.spread)

        for name, how in METHODS:
            begin = time.perf_counter()
            limit = max(1, made["algorithm 1"][0].benches // 10) if how.method == "model" else most
            found = plan(ensemble, devices, profiles, bench=bench, max_benches=limit, options=how)
            made[name] = (found, time.perf_counter() - begin)
            print(f"{room} memory, {name}: {found.benches} benchmarks", flush=True)
        turns = [{name: bench(a.placements).throughput for name, (a, _) in made.items()} for _ in range(rounds)]
    for name, (found, took) in made.items():
        speed = float(np.median([turn[name] for turn in turns]))
        predicted = throughput_model.predict(found.placements, devices, costs).throughput
        ratio = float(np.median([turn[name] / turn["algorithm 1"] for turn in turns]))
        members_of = [f"{len({p.member for p in found.placements if p.device == d.name})} on {d.name}" for d in devices]
        taken = memory.device_usage(found.placements, devices, costs)
        report.add(
            memory=room,
            method=name,
            benches=found.benches,
            seconds=took,
            images_per_s=speed,
            x_algorithm_1=ratio,
            predicted=predicted,
            model_error=f"{predicted / speed - 1:+.0%}",
            members=", ".join(members_of),
            planned=", ".join(memory.format_bytes(taken[d.name]) for d in devices),
        )


if __name__ == "__main__":
    main()
