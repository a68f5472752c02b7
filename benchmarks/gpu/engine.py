"""Step engine: ensembles of 4, 7 and 12 members against hand-written loops, and workers killed under load.

The loops call the same loaded backends from one thread: one member after the other on the default stream, or each on a
stream of its own. The engine's thread workers share the default stream of one process; its process workers have a CUDA
context each. All arrangements of an ensemble are measured in turns.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from kit import (
    Options,
    Report,
    local_device,
    make_bundle,
    median_range,
    random_images,
    read_options,
    synchronize,
    time_in_turns,
    weights_path,
    write_networks,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
import faults

from ripieno import backends
from ripieno.backends import Backend
from ripieno.engine import Engine, RestartPolicy, bench
from ripieno.types import Bundle, Member

COUNTS = (4, 7, 12)
BACKENDS = ("torch", "torch-graphs")
ARRANGEMENTS = (("thread", 1), ("thread", 4), ("process", 1), ("process", 4))
"""Isolation and number of workers of the engine."""
BATCH = 128


def main() -> None:
    """Compare the arrangements, then kill workers."""
    options = read_options()
    report = Report(options)
    folder = options.scratch / "engine"
    members = write_networks(folder, options.shapes(12))
    counts, tried = ((4,), BACKENDS[:1]) if options.dry else (COUNTS, BACKENDS)
    for backend in tried:
        for count in counts:
            if options.left() < options.seconds / 3:  # kept for the kills
                report.note("The time ended before all arrangements were measured.")
                break
            with report.case(members=count, backend=backend):
                compare(options, report, folder, members[:count], backend)
    with report.case(arrangement="killed workers"):
        kill_workers(options, report, folder, members[:4])


def compare(options: Options, report: Report, folder: Path, members: Sequence[Member], backend: str) -> None:
    """Measure the loops and the engine in turns over requests of a whole batch."""
    device = local_device(options)
    batch, rounds, seconds = (8, 2, 0.1) if options.dry else (BATCH, 3, 0.5)
    images = random_images(batch)
    loaded = [backends.load(backend, weights_path(folder, m), m, device, 1) for m in members]
    loops: dict[str, Callable[[], object]] = {"loop, one stream": lambda: run_loop(loaded, images)}
    if not options.dry and backend == "torch":
        loops["loop, a stream per member"] = stream_loop(loaded, images)
    speeds = {name: [batch / s for s in times] for name, times in time_in_turns(loops, options.device, seconds).items()}
    latencies: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [one.close() for one in loaded])
        engines = {}
        for isolation, workers in ARRANGEMENTS[: 2 if options.dry else None]:
            bundle = make_bundle(folder, members, device, backend, batch, workers)
            name = f"engine, {workers} {isolation} worker{'s' * (workers > 1)}"
            with report.case(members=len(members), backend=backend, arrangement=name):
                engines[name] = (stack.enter_context(Engine(bundle, isolation=isolation)), bundle)
        for _ in range(rounds):
            for name, call in loops.items():
                speeds[name] += [batch / s for s in time_in_turns({name: call}, options.device, seconds, 1)[name]]
            for name, (engine, bundle) in engines.items():
                seen = bench(bundle, engine=engine, seconds=seconds, batch=batch)
                speeds.setdefault(name, []).append(seen.throughput)
                latencies.setdefault(name, []).append(seen.p50)
        expected = run_loop(loaded, images)
        for name, (engine, _) in engines.items():
            worst = float(np.abs(engine.predict(images) - expected).max())
            if worst > 1e-4:
                report.add(
                    members=len(members), arrangement=name, error=f"answers differ from the loop's by {worst:.2g}"
                )
    alone = np.median(speeds["loop, one stream"])
    for name, values in speeds.items():
        row = {"p50_ms": float(np.median(latencies[name])) * 1e3} if name in latencies else {}
        ratio = float(np.median(values) / alone)
        found = {f"images_per_s_{key}": value for key, value in median_range(values).items()}
        report.add(members=len(members), backend=backend, arrangement=name, **found, x_loop=ratio, **row)


def run_loop(loaded: Sequence[Backend], images: np.ndarray) -> np.ndarray:
    """Return the mean of all members, one after the other."""
    return np.mean([one.infer(images) for one in loaded], axis=0)


def stream_loop(loaded: Sequence[Backend], images: np.ndarray) -> Callable[[], object]:
    """Return a loop that enqueues each member's network on a stream of its own and waits once."""
    import torch

    batch = torch.from_numpy(images).cuda()
    streams = [torch.cuda.Stream() for _ in loaded]

    def run() -> object:
        parts = []
        with torch.inference_mode():
            for one, stream in zip(loaded, streams, strict=True):
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    parts.append(torch.softmax(one._network(batch).float(), 1))
            synchronize("cuda:0")
            return torch.stack(parts).mean(0).cpu().numpy()

    return run


def kill_workers(options: Options, report: Report, folder: Path, members: Sequence[Member]) -> None:
    """Kill and stop process workers under load; every answer is compared with the loop's."""
    device = local_device(options)
    chosen = members[:2] if options.dry else members
    bundle: Bundle = make_bundle(folder, chosen, device, "torch", 32, 2)
    # kernels of other batch sizes add in another order
    faults.TOLERANCE = 1e-4
    # a worker that imports PyTorch does not answer at once
    faults.PATIENCE = RestartPolicy(ping=10.0, check=0.2, stall=20.0)
    images = faults.unlike_images(128 if options.dry else 512, 0)
    loaded = [backends.load("torch", weights_path(folder, m), m, device, 1) for m in chosen]
    truth = run_loop(loaded, images)
    for one in loaded:
        one.close()
    least = faults.apart(truth)
    if least < 10 * faults.TOLERANCE:
        report.add(arrangement="killed workers", error=f"two images differ by only {least:.1e}: they prove nothing")
    seconds = 3.0 if options.dry else 30.0
    found = faults.one_round(bundle, images, truth, 0, seconds)
    for name, times in found.pop("times").items():
        if times:
            report.add(arrangement=f"killed workers, {name}", times=len(times), restart_s=float(np.median(times)),
                       longest_s=max(times))  # fmt: skip
    errors = "; ".join(found.pop("errors"))
    counts = {key.replace(" ", "_"): value for key, value in found.items()}
    bad = {key: value for key, value in counts.items() if value and key in ("wrong", "lost", "doubled")}
    row = {"error": errors or str(bad)} if bad or errors else {}
    report.add(arrangement="killed workers, requests", **counts, **row)


if __name__ == "__main__":
    main()
