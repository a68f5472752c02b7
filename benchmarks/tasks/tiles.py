"""Masks served: images per second and p99, and large pictures in tiles against whole and shrunk ones.

    python benchmarks/tasks/tiles.py [--minutes 10] [--seed 0] [--seconds 10] [--rounds 5] [--images 233]

The ensemble `whole` is that of `segmentation.py` from nothing at twice the median member's cost: its networks take the
pictures of CamVid as they are, 256 x 192. The ensemble `quarters` is selected likewise from a search of MINUTES of two
cores on the quarters of the training pictures, 128 x 96. It predicts the whole pictures in tiles that overlap by 0, a
quarter and a half, and shrunk. Mean IoU is that of the test pixels at 256 x 192. Both are served over HTTP by their
masks, to 1 and to 8 clients that send a JPEG each in turn, in alternating rounds; speeds are medians, p99 is that of
all requests. The machine must be quiet. Writes benchmarks/results/tasks-tiles.{json,txt}.
"""

from __future__ import annotations

import argparse
import io
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
import numpy as np
from ensembles import measured
from libraries import one_thread, versions
from numpy.typing import NDArray
from PIL import Image
from record import record
from searches import CORES, timed_search
from sets import ROOT, RUNS, camvid_run, prepared

import ripieno
from ripieno.data import open_dataset
from ripieno.library import Library
from ripieno.server import Client, start_in_thread
from ripieno.tasks.pixels import mask_counts
from ripieno.types import Bundle, Dataset

BUDGET = 2.0
"""Budget of both ensembles, in costs of their median member."""
OVERLAPS = (0.0, 0.25, 0.5)
CLIENTS = (1, 8)


def bundle_of(library: Library) -> Bundle:
    """Return a bundle of the ensemble of a library at `BUDGET`."""
    costs = list(measured(library).alone("seconds").values())
    (ensemble,) = ripieno.select(library, float(np.median(costs)) * BUDGET, test=False)
    return ripieno.allocate(library, ensemble.name)


def accuracy(bundle: Bundle, pictures: NDArray[Any], dataset: Dataset, **how: Any) -> dict[str, float]:
    """Return mean IoU and pixel accuracy of the masks of pictures (samples, height, width, 3), and the seconds."""
    masks = np.asarray(dataset.targets[dataset.rows("test")][: len(pictures)])
    started = time.perf_counter()
    found = np.stack([one.mask for one in ripieno.predict_masks(bundle, pictures, **how)])
    seconds = time.perf_counter() - started
    counts = mask_counts(found, masks, len(dataset.task.names)).total
    return {
        "mean IoU %": 100 * float(counts.mean_iou()),
        "pixel accuracy %": 100 * float(counts.accuracy()),
        "pictures/s alone": len(pictures) / seconds,
    }


def load(url: str, pictures: Sequence[bytes], clients: int, seconds: float, resize: bool) -> tuple[float, list[float]]:
    """Return pictures per second and the latencies of `clients` that send one picture after another."""
    latencies: list[list[float]] = [[] for _ in range(clients)]
    stop = time.perf_counter() + seconds

    def send(number: int) -> None:
        with Client(url) as client:
            place = number
            while (started := time.perf_counter()) < stop:
                client.masks([pictures[place % len(pictures)]], resize=resize)
                latencies[number].append(time.perf_counter() - started)
                place += clients

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [latency for own in latencies for latency in own]
    return len(taken) / (time.perf_counter() - started), taken


def served(bundles: dict[str, tuple[Bundle, bool]], pictures: Sequence[bytes], options: Any) -> list[dict[str, Any]]:
    """Return speed and p99 of each way to serve, a bundle and whether it shrinks, in alternating rounds."""
    servers = {path: start_in_thread(path) for path in {str(bundle.path) for bundle, _ in bundles.values()}}
    speeds: dict[tuple[str, int], list[float]] = {}
    latencies: dict[tuple[str, int], list[float]] = {}
    try:
        for turn in range(options.rounds + 1):  # the first one warms up
            for name, (bundle, resize) in bundles.items():
                for clients in CLIENTS:
                    server = servers[str(bundle.path)]
                    speed, taken = load(server.url, pictures, clients, options.seconds, resize)
                    if turn:
                        speeds.setdefault((name, clients), []).append(speed)
                        latencies.setdefault((name, clients), []).extend(taken)
    finally:
        for server in servers.values():
            server.stop()
    return [
        {"pictures": name, "clients": clients, "pictures/s": float(np.median(found)), "least": min(found)}
        | {"most": max(found), "p50 ms": 1e3 * float(np.median(latencies[name, clients]))}
        | {"p99 ms": 1e3 * float(np.quantile(latencies[name, clients], 0.99))}
        for (name, clients), found in speeds.items()
    ]


def jpeg(picture: NDArray[Any]) -> bytes:
    """Return a picture as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95)
    return file.getvalue()


def main() -> None:
    """Search the quarters, then measure accuracy and speed."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10, help="of a load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=233, help="test images at most")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    dataset = open_dataset(prepared("camvid", 0, options.data))
    arguments = [str(prepared("quarters", 0, options.data)), "--seed", str(options.seed)]
    run = RUNS / "segmentation" / f"quarters-{options.seed}"
    quarters = bundle_of(timed_search(run, arguments, options.minutes))
    whole = bundle_of(Library(camvid_run(options.seed)))
    pictures = np.asarray(dataset.inputs[dataset.rows("test")][: options.images])
    ways: dict[str, Callable[[], dict[str, float]]] = {"whole": lambda: accuracy(whole, pictures, dataset)}
    for overlap in OVERLAPS:
        ways[f"tiles, overlap {overlap:g}"] = lambda o=overlap: accuracy(quarters, pictures, dataset, overlap=o)
    ways["shrunk"] = lambda: accuracy(quarters, pictures, dataset, resize=True)
    rows = [{"pictures": name, **measure()} for name, measure in ways.items()]
    ways_served = {"whole": (whole, False), "tiles, overlap 0.25": (quarters, False), "shrunk": (quarters, True)}
    files = [jpeg(picture) for picture in pictures[:64]]
    rows += served(ways_served, files, options)
    members = {"whole": len(whole.ensemble.members), "quarters": len(quarters.ensemble.members)}
    settings = {"minutes": options.minutes, "cores": CORES, "rounds": options.rounds, "members": members, **versions()}
    record("tasks-tiles", settings, rows, "tiles and shrunk: networks of 128 x 96; whole: of 256 x 192")


if __name__ == "__main__":
    main()
