"""Step serving: the HTTP server against a hand-written loop over the same members, in turns.

The loop copies a batch to the device, runs every member and copies the mean back: no queue, no HTTP, no check. The
client (benchmarks/serving/client.py) is a process on the same machine and compares every answer.
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
    time_in_turns,
    weights_path,
    write_networks,
)

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "serving"))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "serving" / "peers"))
from client import LOADS, Client
from servers import ours

from ripieno import backends, files
from ripieno.backends import Backend

BATCHES = (16, 64, 256)
"""Batch sizes of the loop."""


def main() -> None:
    """Measure the loop at its best batch size, then the server at every load."""
    options = read_options()
    report = Report(options)
    folder = options.scratch / "serving"
    members = write_networks(folder, options.shapes(2 if options.dry else 4))
    device = local_device(options)
    images = random_images(160)
    for backend in ("torch",) if options.dry else ("torch", "torch-graphs"):
        loaded = [backends.load(backend, weights_path(folder, m), m, device, 1) for m in members]
        expected = predict(loaded, images)
        seconds, rounds = (0.2, 1) if options.dry else (1.0, 5)
        speeds = {}
        for batch in BATCHES[:1] if options.dry else BATCHES:
            times = time_in_turns({"": loop(loaded, batch)}, options.device, seconds)[""]
            speeds[batch] = batch / min(times)
            report.add(backend=backend, what=f"loop, batches of {batch}", images_per_s_median=speeds[batch])
        best = max(speeds, key=lambda batch: speeds[batch])
        # an early file of another backend would be served instead
        files.write_json(folder / "bundle.json", make_bundle(folder, members, device, backend, best, 1))
        for isolation in ("thread",) if options.dry else ("thread", "process"):
            with report.case(backend=backend, what=f"server, {isolation} worker"):
                serve(options, report, folder, isolation, backend, images, expected, loop(loaded, best), best, rounds)
        for one in loaded:
            one.close()


def predict(loaded: Sequence[Backend], images: np.ndarray) -> np.ndarray:
    """Return the mean of all members."""
    return np.mean([one.infer(images) for one in loaded], axis=0, dtype=np.float32)


def loop(loaded: Sequence[Backend], batch: int) -> Callable[[], object]:
    """Return a call of the loop for one batch."""
    images = random_images(batch)
    return lambda: predict(loaded, images)


def serve(
    options: Options,
    report: Report,
    folder: Path,
    isolation: str,
    backend: str,
    images: np.ndarray,
    expected: np.ndarray,
    call: Callable[[], object],
    batch: int,
    rounds: int,
) -> None:
    """Measure the server and the loop in turns; add a row for each load."""
    seconds = 0.3 if options.dry else 1.0
    taken: dict[str, list[tuple[float, float, float, float]]] = {}
    with contextlib.closing(Client(images, expected)) as client, ours(folder, isolation) as running:
        running.wait(client)
        for _ in range(rounds):
            for load in LOADS:
                alone = batch / min(time_in_turns({"": call}, options.device, seconds, 1)[""])
                seen = client.ask(running.server, load, seconds)
                taken.setdefault(load.name, []).append((alone, seen.throughput, seen.p50, seen.p99))
    for name, numbers in taken.items():
        shares = [server / alone for alone, server, _, _ in numbers]
        found = {f"images_per_s_{key}": value for key, value in median_range([n[1] for n in numbers]).items()}
        p50, p99 = (float(np.median([n[i] for n in numbers])) for i in (2, 3))
        ratios = {f"share_of_loop_{key}": value for key, value in median_range(shares).items()}
        what = f"server, {isolation} worker, {name}"
        report.add(backend=backend, what=what, **found, **ratios, p50_ms=p50, p99_ms=p99)


if __name__ == "__main__":
    main()
