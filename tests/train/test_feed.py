from __future__ import annotations

import numpy as np
import pytest
import torch

from ripieno.data.augment import Augmentation
from ripieno.models.build import build
from ripieno.train import feed
from ripieno.train.feed import Feed
from ripieno.types import Dataset


def epoch(
    digits: Dataset, batch_size: int, seed: int = 0, augment: Augmentation | None = None
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Images (NHWC, in their own unit), labels and batch sizes of one epoch."""
    network = build("resnet", {"width": 2}, digits.input, 10)
    shuffle, draws = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    source = Feed(digits, torch.device("cpu"))
    blocks = list(source.batches(network, augment or Augmentation(), batch_size, shuffle, draws))
    parts = [part for block in blocks for part in block]
    assert len(parts) == source.steps(batch_size)
    images = torch.cat([i for i, _ in parts]).permute(0, 2, 3, 1)
    return images, torch.cat([n for _, n in parts]), [len(n) for _, n in parts]


@pytest.mark.parametrize("bytes_of_a_block", [1, 5000, 1 << 20])
def test_every_training_sample_comes_once_with_its_label(
    digits: Dataset, bytes_of_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BLOCK_BYTES", bytes_of_a_block)
    images, labels, sizes = epoch(digits, 10)
    rows = digits.rows("train")
    expected = {digits.images[r].tobytes() + bytes([digits.labels[r]]) for r in rows}
    seen = [i.numpy().astype(np.uint8).tobytes() + bytes([int(n)]) for i, n in zip(images, labels, strict=True)]
    assert set(seen) == expected
    assert len(seen) == len(rows)
    assert sizes == [10] * 21 + [6]


def test_the_size_of_blocks_changes_nothing_but_memory(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = epoch(digits, 10)
    monkeypatch.setattr(feed, "BLOCK_BYTES", 1)
    assert all(torch.equal(a, b) for a, b in zip(whole[:2], epoch(digits, 10)[:2], strict=True))


def test_a_sample_left_alone_waits_for_another_epoch(digits: Dataset) -> None:
    assert epoch(digits, 5)[2] == [5] * 43
    assert epoch(digits, 216)[2] == [216]


def test_the_order_and_the_augmentation_follow_the_generators(digits: Dataset) -> None:
    moved = Augmentation(max_rotation=20)
    one, same, other = (epoch(digits, 32, seed, moved)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, epoch(digits, 32, 1)[0])
