"""Selection with pixels as samples: 500 images of 256 x 256, 40 networks, greedy until it stops.

    python benchmarks/selection/segmentation.py [--quick] [--folder DIR] [--device cuda]

The true-class probabilities of 32.8 million pixels are one float16 file (2.6 GB), mapped into memory with a warm page
cache. The floor is the time to read the bytes that the search evaluated, at the speed of a sum over the same file by
as many threads. Targets: under 20 s and under 4 GiB resident on 2 cores. Writes
benchmarks/results/selection-segmentation{,-quick,-gpu}.{json,txt}.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from libraries import one_thread, versions

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.selection import select_members, tree

PIXELS = 500 * 256 * 256
MEMBERS = 40


def make(path: Path, pixels: int) -> None:
    """Write networks of varied quality: a shared difficulty per pixel, and noise per network."""
    rng = np.random.default_rng(0)
    target = np.lib.format.open_memmap(path, "w+", np.float16, (MEMBERS, pixels))
    block = 1 << 20
    for start in range(0, pixels, block):
        stop = min(start + block, pixels)
        ease = rng.standard_normal(stop - start, dtype=np.float32) * 2
        for member in range(MEMBERS):
            logit = rng.standard_normal(stop - start, dtype=np.float32) * (1.2 + member % 5 * 0.2)
            logit += ease + 2.0 + 0.4 * np.sin(member)
            target[member, start:stop] = 1 / (1 + np.exp(-logit))
    target.flush()


def bandwidth(path: Path) -> float:
    """Return bytes per second of a sum over the whole file, one thread per core; the better of two passes."""
    words = np.memmap(path, np.uint64, "r", offset=128)
    parts = np.array_split(words, 64)
    best = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            list(threads.map(np.sum, parts))
        best = max(best, words.nbytes / (time.perf_counter() - start))
    return best


def main() -> None:
    """Make the file, read it, choose."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the pixels")
    parser.add_argument("--folder", help="where to put the file (default: a temporary folder)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    pixels = PIXELS // 16 if options.quick else PIXELS
    evaluations: list[int] = []
    evaluate = tree.Tree._evaluate

    def counted(self: tree.Tree[object], node: tree.SearchNode[object], candidates: np.ndarray) -> None:
        evaluations.append(len(candidates))
        evaluate(self, node, candidates)

    tree.Tree._evaluate = counted  # type: ignore[method-assign]
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "truth.npy"
        make(path, pixels)
        speed = bandwidth(path)
        truth = np.load(path, mmap_mode="r")
        for method in ("forward", "smobf"):
            evaluations.clear()
            start = time.perf_counter()
            choice = select_members(truth, method=method, prune=1.0, device=options.device)
            took = time.perf_counter() - start
            read = sum(evaluations) * pixels * 2
            rows.append(
                {
                    "method": method,
                    "seconds": took,
                    "members": len(choice.members),
                    "evaluations": sum(evaluations),
                    "read GB": read / 1e9,
                    "GB/s": read / took / 1e9,
                    "bandwidth GB/s": speed / 1e9,
                    "over the floor": took / (read / speed),
                    "peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
                    "loss": choice.loss,
                }
            )
        name = "selection-segmentation" + "-quick" * options.quick + "-gpu" * (options.device != "cpu")
        settings = {"pixels": pixels, "networks": MEMBERS, "device": options.device, **versions()}
        record(name, settings, rows, "peak memory counts the pages of the mapped file")


if __name__ == "__main__":
    main()
