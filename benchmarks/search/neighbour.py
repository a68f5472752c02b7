"""Training and prediction speed next to another busy process, by the wait policy of OpenMP's threads.

from ripieno.types import classification
    python benchmarks/search/neighbour.py [--quick] [--seconds 6] [--rounds 3] [--threads N] [--busy 1]

A small and a larger network on images of 32 x 32, trained by real steps with one thread per core, and the small one
run by the PyTorch backend in batches of 32. Each wait policy gets its own process, because it takes effect only before
PyTorch is loaded. Policies alternate within a round, undisturbed and next to `--busy` processes that never wait;
figures are medians and ranges. "kept" is the share of the undisturbed speed; "fair" would be that share if all threads
had an equal part of the cores. "neighbour" is the share of a core that each busy process got.
Writes benchmarks/results/search-neighbour.{json,txt}. The machine must be idle otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

WAYS: dict[str, dict[str, str]] = {
    "as libraries do": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
}
"""Environment by wait policy; the spin count is for GNU's OpenMP, which PyTorch's wheels for Linux include."""
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
NETWORKS: dict[str, dict[str, int]] = {
    "small": {"stem_filters": 8, "width": 8, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1},
    "larger": {"stem_filters": 32, "width": 16, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1},
}
WORK = ("train small", "train larger", "predict small")
BATCH = {"train": 64, "predict": 32}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--busy", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=3, metavar=("WORK", "FOLDER", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work, folder, seconds = options.child
        print(json.dumps(steps(work, Path(folder), float(seconds), options.threads)))
        return
    if options.quick:
        options.seconds, options.rounds = 1.0, 1
    found: dict[tuple[str, str, bool], list[float]] = {}
    shares: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for turn in range(options.rounds):
            for work in WORK:
                names = list(WAYS) if turn % 2 == 0 else list(reversed(WAYS))
                for name in names:
                    for busy in (False, True):
                        with neighbours(options.busy if busy else 0) as others:
                            before, began = cpu_seconds(others), time.perf_counter()
                            rate = child(work, folder, options.seconds, options.threads, WAYS[name])
                            used, took = cpu_seconds(others) - before, time.perf_counter() - began
                        found.setdefault((work, name, busy), []).append(rate)
                        if busy:
                            shares.setdefault((work, name), []).append(used / took / options.busy)
    cores = len(os.sched_getaffinity(0))
    fair = min(1.0, cores / (options.threads + options.busy))
    rows = [row(work, name, found, shares, fair) for work in WORK for name in WAYS]
    record(
        "search-neighbour" + ("-quick" if options.quick else ""),
        {"threads": options.threads, "busy": options.busy, "seconds": options.seconds, "rounds": options.rounds},
        rows,
    )


def row(
    work: str,
    name: str,
    found: dict[tuple[str, str, bool], list[float]],
    shares: dict[tuple[str, str], list[float]],
    fair: float,
) -> dict[str, object]:
    """Return a row of the table."""
    quiet, busy = found[work, name, False], found[work, name, True]
    usual = statistics.median(found[work, next(iter(WAYS)), False])
    middle = statistics.median(quiet), statistics.median(busy)
    return {
        "work": work,
        "threads wait": name,
        "steps/s quiet": middle[0],
        "range": spread(quiet),
        "x usual": middle[0] / usual,
        "steps/s beside": middle[1],
        "range beside": spread(busy),
        "kept %": 100 * middle[1] / middle[0],
        "fair %": 100 * fair,
        "neighbour %": 100 * statistics.median(shares[work, name]),
    }


def spread(values: list[float]) -> str:
    """Return the minimum and the maximum, as text."""
    return f"{min(values):.4g}..{max(values):.4g}"


@contextmanager
def neighbours(count: int) -> Iterator[list[psutil.Process]]:
    """Run processes that never wait."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield [psutil.Process(process.pid) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the CPU seconds of all processes together."""
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


def child(work: str, folder: str, seconds: float, threads: int, environment: dict[str, str]) -> float:
    """Return the steps per second of `work` in a process with that environment."""
    usual = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, __file__, "--threads", str(threads), "--child", work, folder, str(seconds)]
    limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env={**usual, **limits, **environment}, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def prepare(folder: Path) -> None:
    """Write a data set of noise: the speed of a step does not depend on the content."""
    import numpy as np

    from ripieno.data import load_dataset, write_dataset

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (4096, 32, 32, 3), dtype=np.uint8)
    write_dataset(load_dataset((images, np.arange(4096) % 10)), folder / "dataset")


def steps(work: str, folder: Path, seconds: float, threads: int) -> float:
    """Return the steps, or predicted batches, per second in this process."""
    kind, _, network = work.partition(" ")
    if kind == "train":
        from ripieno.train import TrainingConfig
        from ripieno.train.speed import measure_throughput

        task = TrainingConfig(folder / "run", folder / "dataset", "resnet", 1, 0, threads=threads)
        configuration = {**NETWORKS[network], "batch_size": BATCH[kind]}
        return measure_throughput(task, configuration, seconds, batches=2).rate / BATCH[kind]
    return predicted(folder, NETWORKS[network], seconds, threads)


def predicted(folder: Path, configuration: dict[str, int], seconds: float, threads: int) -> float:
    """Return batches per second of the PyTorch backend."""
    import numpy as np
    from safetensors.torch import save_file

    from ripieno.backends.torch import TorchBackend
    from ripieno.models.build import build
    from ripieno.types import Device, Input, Member, classification

    input, task = Input((32, 32, 3)), classification(list(map(str, range(10))))
    member = Member("net", 0, 1, "resnet", configuration, input, task, {}, 0, 0.0)
    path = folder / "weights.safetensors"
    if not path.exists():
        tensors = build("resnet", configuration, input, task).state_dict()
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    backend = TorchBackend(path, member, Device("cpu:0", "cpu", 1 << 30), threads)
    images = np.random.default_rng(0).integers(0, 256, (BATCH["predict"], *input.shape), dtype=np.uint8)
    for _ in range(3):
        backend.infer(images)
    batches, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        backend.infer(images)
        batches += 1
    return batches / took


if __name__ == "__main__":
    main()
