"""Strategies to prepare training data: images per second, and the share of the time spent waiting for data.

    python benchmarks/search/feed.py [--quick] [--data ../shared/data] [--seconds 4] [--rounds 3]

Fashion-MNIST and CIFAR-100, with light augmentation (mirrored, channels shifted) and heavy (also zoomed, moved, sheared
and rotated), a small and a larger network, trained with real steps by one thread. Data is prepared by the trainer
between steps or by a thread; both alternate within a round, and figures are medians.
"prepared" is the rate of the preparation alone, without a trainer. "chosen" marks the choice of `StrategySelector` on a
machine with spare cores; where all cores train, the trainer prepares. Writes benchmarks/results/search-feed.{json,txt}.
"""

from __future__ import annotations

import argparse
import io
import itertools
import lzma
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.data import load_dataset, open_dataset, write_dataset
from ripieno.train import TrainingConfig
from ripieno.train.loading_strategy import GOAL, INLINE, LoadingStrategy, StrategyTiming, best, strategies
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.train.speed import measure_throughput
from ripieno.types import Configuration, Job, Value

LIGHT: dict[str, Value] = {"flip": True, "max_channel_shift": 0.1}
HEAVY: dict[str, Value] = {**LIGHT, "max_zoom": 0.2, "max_translation": 0.1, "max_shear": 0.1, "max_rotation": 15.0}
NETWORKS: dict[str, dict[str, Value]] = {
    "small": {"stem_filters": 8, "width": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1},
    "larger": {"stem_filters": 32, "width": 16, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1},
}


def fashion(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return 60,000 images of 28 x 28."""
    with lzma.open(data / "fashion_mnist" / "train_images.npy.xz") as packed:
        images = np.load(io.BytesIO(packed.read()))
    return images[..., None], np.load(data / "fashion_mnist" / "train_labels.npy").astype(np.int64)


def cifar(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return 20,000 colour images of 32 x 32, read from sheets of 100 x 100."""
    Image.MAX_IMAGE_PIXELS = None
    sheets = []
    for number in range(2):
        with Image.open(data / "cifar100" / f"train_{number}.webp") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        sheets.append(pixels.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3))
    return np.concatenate(sheets), np.load(data / "cifar100" / "labels.npz")["train_fine"][:20000].astype(np.int64)


def prepared(task: TrainingConfig, configuration: Configuration, seconds: float) -> float:
    """Return the images per second that one thread prepares."""
    trainer = NetworkTrainer(task, INLINE)
    trainer.start(Job(0, configuration, 0, 1 << 20), open_dataset(task.dataset))
    blocks = itertools.chain.from_iterable(trainer.pipeline.batches(epoch) for epoch in itertools.count(1))
    next(blocks)
    started, images = time.perf_counter(), 0
    while (took := time.perf_counter() - started) < seconds:
        images += sum(len(labels) for _, labels in next(blocks))
    return images / took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds = 0.5, 1
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, read in {"fashion": fashion, "cifar100": cifar}.items():
            dataset = write_dataset(load_dataset(read(options.data)), Path(folder) / name)
            assert dataset.path is not None
            task = TrainingConfig(Path(folder) / "run", dataset.path, "resnet", 1, 0)
            for strength, augment in {"light": LIGHT, "heavy": HEAVY}.items():
                for network, shape in NETWORKS.items():
                    configuration = {**shape, **augment, "batch_size": 64}
                    rows += compared(task, configuration, options.seconds, options.rounds, (name, strength, network))
    record(
        "search-feed" + ("-quick" if options.quick else ""),
        {"seconds": options.seconds, "rounds": options.rounds, "goal": GOAL},
        rows,
    )


def compared(
    task: TrainingConfig, configuration: Configuration, seconds: float, rounds: int, where: tuple[str, str, str]
) -> list[dict[str, object]]:
    """Measure all strategies; return one row each."""
    candidates = strategies(1)
    found: dict[LoadingStrategy, list[StrategyTiming]] = {way: [] for way in candidates}
    for _ in range(rounds):
        for way in candidates:
            found[way].append(measure_throughput(task, configuration, seconds, way))
    alone = prepared(task, configuration, min(1.0, seconds))
    middle = [
        StrategyTiming(w, statistics.median(s.rate for s in found[w]), statistics.median(s.waited for s in found[w]))
        for w in candidates
    ]
    chosen = INLINE if middle[0].waited <= GOAL else best(middle)
    return [
        {
            "data": where[0],
            "augmentation": where[1],
            "network": where[2],
            "way": str(speed.way),
            "images/s": speed.rate,
            "x inline": speed.rate / middle[0].rate,
            "waited %": 100 * speed.waited,
            "prepared/s": alone,
            "chosen": "*" if speed.way == chosen else "",
        }
        for speed in middle
    ]


if __name__ == "__main__":
    main()
