"""How many trials share the machine: all packs with real trainings, the profile's choice against the equal split.

    python benchmarks/search/packing.py [--quick] [--data ../shared/data] [--seconds 10] [--rounds 3]

Networks of three sizes drawn from `resnet-tiny` and from `resnet-small`, on CIFAR-100 (10,000 images) with the
augmentation they were drawn with; every pack of this machine trains them with all its trials at once, in worker
processes, packs in turn within a round. The profile that a search makes (1.5 seconds a size) chooses; the longer
rounds, medians, say what the choice is worth. Writes benchmarks/results/search-packing.{json,txt}.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
from feed import cifar
from record import record

from ripieno.data import load_dataset, write_dataset
from ripieno.pipeline.packed import drawn, profile
from ripieno.pipeline.packing import SECONDS, Pack, Rate, choose, cpu_packs, predicted, sizes
from ripieno.pipeline.tuning import job_weight
from ripieno.search.space import find_space
from ripieno.train import Task


def median_rates(rounds: list[tuple[Rate, ...]]) -> list[Rate]:
    """Of each pack and size."""
    return [
        Rate(rate.pack, rate.size, statistics.median(r[n].images for r in rounds)) for n, rate in enumerate(rounds[0])
    ]


def main() -> None:
    """Profile, choose, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    first = SECONDS
    if options.quick:
        options.seconds, options.rounds, first = 0.5, 1, 0.5
    packs = cpu_packs(len(os.sched_getaffinity(0)))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        images, labels = cifar(options.data)
        dataset = write_dataset(load_dataset((images[:10000], labels[:10000])), Path(folder) / "data")
        assert dataset.path is not None
        for name in ("resnet-tiny",) if options.quick else ("resnet-tiny", "resnet-small"):
            space = find_space(name)
            task = Task(Path(folder) / "run", dataset.path, space.family, 1, 0)
            cost = partial(job_weight, space.family, dataset.input, len(dataset.rows("train")))
            middles = sizes(drawn(space, 0), cost)
            started = time.perf_counter()
            chosen = choose(packs, profile(task, packs, middles, seconds=first))
            took = time.perf_counter() - started
            rates = median_rates(
                [profile(task, packs, middles, seconds=options.seconds) for _ in range(options.rounds)]
            )
            rows += [row(name, pack, packs, rates, chosen, took) for pack in packs]
    worth = {str(r["space"]): r["x equal"] for r in rows if r["chosen"]}
    note = "chosen against the equal split: " + ", ".join(f"{space} {times:.3f}" for space, times in worth.items())
    record(
        "search-packing" + ("-quick" if options.quick else ""),
        {"seconds": options.seconds, "rounds": options.rounds},
        rows,
        note + f"; never slower: {bool(np.all([float(str(t)) >= 1 for t in worth.values()]))}",
    )


def row(
    space: str, pack: Pack, packs: tuple[Pack, ...], rates: list[Rate], chosen: Pack, took: float
) -> dict[str, object]:
    """One pack on one space."""
    each = {f"{rate.size} images/s": rate.images for rate in rates if rate.pack == pack}
    equal = predicted(packs[0], rates)
    ratio = predicted(pack, rates) / equal if equal else float("nan")
    return {
        "space": space,
        "pack": str(pack),
        **each,
        "mean": predicted(pack, rates),
        "x equal": ratio,
        "chosen": "*" if pack == chosen else "",
        "profile (s)": took,
    }


if __name__ == "__main__":
    main()
