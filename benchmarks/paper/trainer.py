"""Training throughput of trials, and its share of the device's own matrix rate.

    python benchmarks/paper/trainer.py [SET] [--device cpu|cuda] [--together 1 2 4] [--seconds 5] [--rounds 3] [--quick]

Real steps of real trials: data prepared and augmented (mirrored, zoomed, moved), forward, backward, optimiser. Two
networks: one like ResNet-18 (64 filters, two blocks in each of four stages) and one of 8 filters with one block; on a
GPU each also through torch.compile. `--together` trials train concurrently on the device, each in its own process. The
table gives their total images per second, and the ratio to one trial alone. A step counts as three forwards, each of
two operations per multiply-add. The matrix rate is that of products alone, by as many processes: on a GPU square ones
in bfloat16, the best of three sizes; on a CPU in float32, and a convolution's too. Figures are medians of rounds.
Writes benchmarks/results/paper-trainer-DEVICE.{json,txt}.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import torch
from record import record
from sets import SETS, prepared

from ripieno.data import open_dataset
from ripieno.models.resnet_config import megaflops
from ripieno.train import TrainingConfig
from ripieno.train.speed import measure_throughput
from ripieno.types import Configuration, Input

AUGMENTED: Configuration = {"flip": True, "max_zoom": 0.1, "max_translation": 0.1}
NETWORKS: dict[str, Configuration] = {
    "like ResNet-18": {"stem_filters": 64, "width": 64, **{f"blocks_{n}": 2 for n in (1, 2, 3, 4)}},
    "tiny": {"stem_filters": 8, "width": 8, **{f"blocks_{n}": 1 for n in (1, 2, 3, 4)}},
}
BATCH = {"cpu": 64, "cuda": 512}
SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192, 16384)}


def kernels(kind: str) -> Iterator[tuple[Callable[[], object], float]]:
    """Yield the operations to time on the device, with the arithmetic operations of each."""
    for size in SIZES[kind]:
        a, b = (torch.randn(size, size, device=kind) for _ in range(2))
        if kind == "cuda":
            a, b = a.bfloat16(), b.bfloat16()
        yield partial(torch.matmul, a, b), 2 * size**3
    if kind == "cpu":  # on CPUs PyTorch's products use other code than its convolutions, half as fast on AMD
        x, w = (torch.randn(*s).to(memory_format=torch.channels_last) for s in ((64, 128, 14, 14), (128, 128, 3, 3)))
        yield partial(torch.conv2d, x, w, padding=1), 2 * 9 * 128**2 * 64 * 14**2


def products(device: str, seconds: float, ready: Callable[[], object]) -> float:
    """Return operations per second of large products alone, at the best of several sizes."""
    kind, best = device.partition(":")[0], 0.0
    torch.set_num_threads(1)
    for multiply, operations in kernels(kind):
        for _ in range(3):
            multiply()
        ready()
        count, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            for _ in range(8):
                multiply()
            if kind == "cuda":
                torch.cuda.synchronize()
            count += 8
        best = max(best, operations * count / took)
    return best


def work(what: tuple[TrainingConfig, Configuration] | str, seconds: float, barrier: Barrier) -> float:
    """Do one process' part: images per second of a trial, or operations per second of the named device."""
    if isinstance(what, str):
        return products(what, seconds, barrier.wait)
    return measure_throughput(*what, seconds, ready=barrier.wait).rate


def _answer(pipe: object, *arguments: object) -> None:
    pipe.send(work(*arguments))  # type: ignore[attr-defined, arg-type]


def together(count: int, what: tuple[TrainingConfig, Configuration] | str, seconds: float) -> float:
    """Return the sum over `count` concurrent processes."""
    context = multiprocessing.get_context("spawn")
    barrier, pipes = context.Barrier(count), []
    for _ in range(count):
        mine, theirs = context.Pipe()
        process = context.Process(target=_answer, args=(theirs, what, seconds, barrier), daemon=True)
        process.start()
        theirs.close()
        pipes.append((process, mine))
    found = [mine.recv() for _, mine in pipes]
    for process, _ in pipes:
        process.join()
    return sum(found)


def rows_of(
    name: str, task: TrainingConfig, seen: Input, given: argparse.Namespace, rates: dict[int, float]
) -> list[dict[str, object]]:
    """Return a row for each number of concurrent trials; the numbers alternate within a round."""
    configuration = NETWORKS[name] | AUGMENTED | {"batch_size": given.batch or BATCH[given.device]}
    taken = [
        {n: together(n, (task, configuration), given.seconds) for n in given.together} for _ in range(given.rounds)
    ]
    operations = 6e6 * megaflops(configuration, seen)
    first = given.together[0]
    return [
        {
            "network": name + (", compiled" if task.compiled else ""),
            "million multiply-adds": operations / 6e6,
            "batch": configuration["batch_size"],
            "trials at once": count,
            "images/s": statistics.median(turn[count] for turn in taken),
            "from": min(turn[count] for turn in taken),
            "to": max(turn[count] for turn in taken),
            f"x {first}": statistics.median(turn[count] / turn[first] for turn in taken),
            "of the matrix rate": statistics.median(turn[count] for turn in taken) * operations / rates[count],
        }
        for count in given.together
    ]


def main() -> None:
    """Measure the products, then the trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS, nargs="?", default="cifar100")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--together", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--quick", action="store_true", help="the tiny network, one round, half a second")
    given = parser.parse_args()
    if given.quick:
        given.seconds, given.rounds = 0.5, 1
    dataset = prepared(given.set, given.data, given.images)
    seen = open_dataset(dataset).input
    print("measuring the device's own rate", file=sys.stderr)
    rates = {count: together(count, given.device, given.seconds) for count in given.together}
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("tiny",) if given.quick else NETWORKS:
            for compiled in (False, True) if given.device == "cuda" else (False,):
                task = TrainingConfig(
                    Path(scratch), dataset.resolve(), "resnet", 1, 0, 1, given.device, compiled=compiled
                )
                print(f"{name}{', compiled' * compiled}: {given.rounds} rounds", file=sys.stderr)
                rows += rows_of(name, task, seen, given, rates)
    rate_text = ", ".join(f"{count}: {rate / 1e12:.3g}" for count, rate in rates.items())
    settings = {"set": given.set, "device": given.device, "torch": torch.__version__, "rounds": given.rounds}
    note = f"the device's own rate by number of processes, in 10^12 operations per second: {rate_text}"
    record(f"paper-trainer-{given.device}" + "-quick" * given.quick, settings, rows, note)


if __name__ == "__main__":
    main()
