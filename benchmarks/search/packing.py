"""Trial packing: all packs with real trainings, the profile's choice against the equal split.

    python benchmarks/search/packing.py [--quick] [--data ../shared/data] [--seconds 4] [--turns 7]

Networks of three sizes are drawn from `resnet-tiny` and from `resnet-small`, on CIFAR-100 (10,000 images) with their
own augmentation; all trials of a pack train concurrently, in worker processes. A search's profile chooses, as in
`ripieno tune`. Then each other pack is compared with the equal split, in turns of the same workers: first one, then the
other, then in reverse order. The table gives the median ratio over the turns, and the range. Noise shows in that range:
a pack is slower or quicker only if the whole range says so. Writes benchmarks/results/search-packing.{json,txt}.
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

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
from feed import cifar
from record import record

from ripieno.data import load_dataset, write_dataset
from ripieno.pipeline.epoch_cost import estimate_epoch_cost
from ripieno.pipeline.trial_packing import (
    PackingConfig,
    PackingRate,
    cpu_packs,
    predicted,
    representative_configurations,
)
from ripieno.pipeline.trial_packing_benchmark import measure_alternately, measure_and_choose, sample_configurations
from ripieno.search.built_in_spaces import find_space
from ripieno.train import TrainingConfig


def main() -> None:
    """Profile, choose, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.turns = 0.5, 3
    packs = cpu_packs(len(os.sched_getaffinity(0)))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        images, labels = cifar(options.data)
        dataset = write_dataset(load_dataset((images[:10000], labels[:10000])), Path(folder) / "data")
        assert dataset.path is not None
        for name in ("resnet-tiny",) if options.quick else ("resnet-tiny", "resnet-small"):
            space = find_space(name)
            task = TrainingConfig(Path(folder) / "run", dataset.path, space.family, 1, 0)
            cost = partial(estimate_epoch_cost, space.family, dataset.input, len(dataset.rows("train")))
            middles = representative_configurations(sample_configurations(space, 0), cost)
            started = time.perf_counter()
            chosen = measure_and_choose(task, "here", packs, middles).chosen
            took = time.perf_counter() - started
            for pack in packs[1:]:
                turns = measure_alternately(
                    task, (packs[0], pack), middles, turns=options.turns, seconds=options.seconds
                )
                rows.append(row(name, packs[0], pack, turns, chosen, took))
    note = "; ".join(verdict(rows, space) for space in dict.fromkeys(str(r["space"]) for r in rows))
    settings = {"seconds": options.seconds, "turns": options.turns}
    record("search-packing" + ("-quick" if options.quick else ""), settings, rows, note)


def row(
    space: str,
    equal: PackingConfig,
    pack: PackingConfig,
    turns: tuple[tuple[PackingRate, ...], ...],
    chosen: PackingConfig,
    took: float,
) -> dict[str, object]:
    """Compare one pack with the equal split; return a row."""
    times = [predicted(pack, turn) / predicted(equal, turn) for turn in turns]
    here, there = (statistics.median(predicted(one, turn) for turn in turns) for one in (pack, equal))
    return {
        "space": space,
        "pack": str(pack),
        "images/s": here,
        "of the equal split": there,
        "x equal": statistics.median(times),
        "from": min(times),
        "to": max(times),
        "chosen": str(chosen),
        "profile (s)": took,
    }


def verdict(rows: list[dict[str, object]], space: str) -> str:
    """Summarise the choice in one clause."""
    mine = [row for row in rows if row["space"] == space]
    won = next((row for row in mine if row["pack"] == row["chosen"]), None)
    if won is None:
        return f"{space}: the equal split stays"
    sure = "slower" if float(str(won["to"])) < 1 else "quicker" if float(str(won["from"])) > 1 else "as quick"
    return f"{space}: {won['chosen']} instead of the equal split, {sure} ({won['x equal']:.2f})"


if __name__ == "__main__":
    main()
