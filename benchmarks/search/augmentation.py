"""Speed of augmentation by policies: images a second of one core, against kornia and against the ranges of table 5.

    python benchmarks/search/augmentation.py [--seconds 0.5] [--rounds 5] [--side 32 64]

Colour images at random, in the blocks of the trainer (2 MiB), are augmented and normalised by one thread, each way in
turn in every round. kornia chooses one operation for a batch (of 128), ours one for an image. Rates are medians over
rounds by processor time, with their range. "results" are the different images made of a batch of 128 equal ones. The
trainer's images a second, by the clock, are those of a network of 5 million multiply-adds.
Writes benchmarks/results/search-augmentation.{json,txt}.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from kornia.augmentation.auto import RandAugment, TrivialAugment
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.data import load_dataset, write_dataset
from ripieno.data.augment import Augmentation
from ripieno.data.augmentation_policy import RandomPolicy
from ripieno.data.image_operations import ImageOperations
from ripieno.train import TrainingConfig
from ripieno.train.augmentation import InputAugmentation
from ripieno.train.batching import BLOCK_BYTES, InputTransform
from ripieno.train.policy_augmentation import PolicyAugmentation
from ripieno.train.speed import measure_throughput
from ripieno.types import Configuration

BATCH = 128
NETWORK: Configuration = {
    **{"stem_filters": 16, "width": 8, "batch_size": 64},
    **dict.fromkeys(("blocks_1", "blocks_2", "blocks_3", "blocks_4"), 1),
}
TRAINED: dict[str, Configuration] = {
    "none": {},
    "TrivialAugment": {"operations": 1},
    "ranges of resnet": {
        **{"max_zoom": 0.2, "max_translation": 0.15, "max_shear": 0.1, "max_channel_shift": 0.1},
        **{"max_rotation": 15, "flip": True},
    },
}
Change = Callable[[Tensor], Tensor]
"""Function of uint8 images (samples, side, side, 3) that returns them augmented and normalised."""


def by_policy(operations: int, magnitude: float | str) -> InputAugmentation:
    """Return a random policy."""
    policy = RandomPolicy("image", operations, magnitude)  # type: ignore[arg-type]
    return PolicyAugmentation(Augmentation(), policy, ImageOperations())


def ours(augment: InputAugmentation) -> Change:
    """Return the preparation of a block by the trainer."""
    transform, generator = InputTransform(augment, torch.zeros(3), torch.ones(3)), torch.Generator().manual_seed(0)

    def change(images: Tensor) -> Tensor:
        return transform(images, None if augment.is_identity else augment.draw(len(images), 3, generator))

    return change


def kornias(augment: Callable[[Tensor], Tensor]) -> Change:
    """Return the same with kornia: its images are 0 to 1, in batches of `BATCH`."""

    def change(images: Tensor) -> Tensor:
        batches = images.movedim(3, 1).float().div(255).split(BATCH)
        return torch.cat([augment(batch) for batch in batches])

    return change


def ways() -> dict[str, Change]:
    """Return the ways by name."""
    table5 = Augmentation(0.2, 0.15, 0.1, 0.1, 15.0, flip=True)
    return {
        "none": ours(Augmentation()),
        "TrivialAugment": ours(by_policy(1, "random")),
        "RandAugment (2, 0.3)": ours(by_policy(2, 0.3)),
        "ranges of resnet": ours(table5),
        "kornia TrivialAugment": kornias(TrivialAugment()),
        "kornia RandAugment (2, 10)": kornias(RandAugment(n=2, m=10)),
    }


def rate(change: Change, images: Tensor, seconds: float) -> float:
    """Return the images a second of processor time."""
    started, done = time.process_time(), 0
    while (took := time.process_time() - started) < seconds:
        change(images)
        done += len(images)
    return done / took


def trained(seconds: float, rounds: int) -> list[dict[str, object]]:
    """Return the images a second of the trainer with and without augmentation, at 32 pixels."""
    draws = np.random.default_rng(0)
    images, labels = draws.integers(0, 256, (6000, 32, 32, 3)).astype(np.uint8), np.arange(6000) % 10
    rates: dict[str, list[float]] = {name: [] for name in TRAINED}
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_dataset(load_dataset((images, labels)), Path(folder) / "data")
        assert dataset.path is not None
        config = TrainingConfig(Path(folder) / "run", dataset.path)
        for _ in range(rounds):
            for name, chosen in TRAINED.items():
                rates[name].append(measure_throughput(config, {**NETWORK, **chosen}, seconds).rate)
    return [
        {"side": 32, "way": f"trainer, {name}", "images/s": statistics.median(found)}
        | {"range": f"{min(found):,.0f} to {max(found):,.0f}"}
        | {"x none": statistics.median(a / b for a, b in zip(found, rates["none"], strict=True))}
        for name, found in rates.items()
    ]


def results(change: Change, side: int) -> int:
    """Return how many different images are made of a batch of equal ones."""
    one = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return len({image.numpy().tobytes() for image in change(one.expand(BATCH, -1, -1, -1).contiguous())})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, nargs="+", default=[32, 64])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)  # for kornia
    rows: list[dict[str, object]] = []
    for side in options.side:
        size = max(1, BLOCK_BYTES["cpu"] // (side * side * 12))
        images = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8)
        changes = ways()
        rates: dict[str, list[float]] = {name: [] for name in changes}
        for _ in range(options.rounds):
            for name, change in changes.items():
                rates[name].append(rate(change, images, options.seconds))
        for name, found in rates.items():
            against = [a / b for a, b in zip(found, rates["kornia TrivialAugment"], strict=True)]
            rows.append(
                {"side": side, "way": name, "images/s": statistics.median(found)}
                | {"range": f"{min(found):,.0f} to {max(found):,.0f}"}
                | {"x kornia TrivialAugment": statistics.median(against), "results": results(changes[name], side)}
            )
    rows += trained(options.seconds * 4, options.rounds)
    record("search-augmentation", {"seconds": options.seconds, "rounds": options.rounds}, rows)


if __name__ == "__main__":
    main()
