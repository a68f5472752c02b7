from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from ripieno.data import blocks
from ripieno.data.augment import Augmentation
from ripieno.models.build import build
from ripieno.train import TrainingConfig, batching
from ripieno.train.batching import Block, EpochBatches
from ripieno.train.data_pipeline import BatchPipeline, copy_to_device
from ripieno.train.device_copy import to_device
from ripieno.train.loading_strategy import INLINE, THREAD, LoadingStrategy
from ripieno.train.speed import measure_throughput
from ripieno.types import IGNORED, Dataset, Task

CPU = torch.device("cpu")
MOVED = Augmentation(max_rotation=20, max_zoom=0.2, max_shear=0.1, max_channel_shift=0.1, flip=True)


def planned(digits: Dataset, batch_size: int, augment: Augmentation, seed: int = 0) -> EpochBatches:
    def generators(epoch: int) -> tuple[np.random.Generator, torch.Generator]:
        return np.random.default_rng((seed, epoch)), torch.Generator().manual_seed(1000 * seed + epoch)

    return EpochBatches(digits, batch_size, augment, generators)


def epoch(
    digits: Dataset,
    batch_size: int,
    seed: int = 0,
    augment: Augmentation | None = None,
    strategy: LoadingStrategy = INLINE,
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Images (NHWC, normalised), labels and batch sizes of one epoch."""
    made = planned(digits, batch_size, augment or Augmentation(), seed)
    with closing(BatchPipeline(digits, made, CPU, 1, strategy=strategy)) as feed:
        parts = [(i.clone(), n) for block in feed.batches(1) for i, n in block]
    assert len(parts) == made.steps
    images = torch.cat([i for i, _ in parts]).permute(0, 2, 3, 1)
    return images, torch.cat([n for _, n in parts]), [len(n) for _, n in parts]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, so that there are many."""
    monkeypatch.setitem(batching.BLOCK_BYTES, "cpu", 24 * 64 * 4)


@pytest.mark.parametrize("bytes_of_a_block", [1, 5000, 1 << 20])
def test_every_training_sample_comes_once_with_its_label(
    digits: Dataset, bytes_of_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(batching.BLOCK_BYTES, "cpu", bytes_of_a_block)
    images, labels, sizes = epoch(digits, 10)
    images = (images * torch.tensor(digits.std) + torch.tensor(digits.mean)).round()
    rows = digits.rows("train")
    expected = {digits.inputs[r].tobytes() + bytes([digits.targets[r]]) for r in rows}
    seen = [i.numpy().astype(np.uint8).tobytes() + bytes([int(n)]) for i, n in zip(images, labels, strict=True)]
    assert set(seen) == expected
    assert len(seen) == len(rows)
    assert sizes == [10] * 21 + [6]


def test_images_come_as_the_network_normalises_them(digits: Dataset) -> None:
    network = build("resnet", {"width": 2}, digits.input, digits.task, digits.mean, digits.std)
    images = epoch(digits, 216)[0]
    order = digits.rows("train")[np.random.default_rng((0, 1)).permutation(216)]
    expected = network.normalise(torch.from_numpy(digits.inputs[order]))
    assert torch.equal(images.permute(0, 3, 1, 2), expected)


@pytest.mark.parametrize("augment", [Augmentation(), MOVED])
def test_the_size_of_blocks_changes_nothing_but_memory(
    digits: Dataset, augment: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = epoch(digits, 10, augment=augment)
    monkeypatch.setitem(batching.BLOCK_BYTES, "cpu", 1)
    assert all(torch.equal(a, b) for a, b in zip(whole[:2], epoch(digits, 10, augment=augment)[:2], strict=True))


@pytest.mark.parametrize("augment", [Augmentation(), MOVED])
def test_a_thread_prepares_the_same_batches(digits: Dataset, augment: Augmentation, small_blocks: None) -> None:
    expected = epoch(digits, 10, 3, augment)
    found = epoch(digits, 10, 3, augment, THREAD)
    assert all(torch.equal(a, b) for a, b in zip(expected[:2], found[:2], strict=True))


@pytest.mark.parametrize("strategy", [INLINE, THREAD], ids=str)
def test_epochs_follow_each_other_and_one_left_in_the_middle_starts_again(
    digits: Dataset, strategy: LoadingStrategy, small_blocks: None
) -> None:
    made = planned(digits, 24, MOVED)
    with closing(BatchPipeline(digits, made, CPU, 4, strategy=INLINE)) as whole:
        expected = [torch.cat([i for block in whole.batches(e) for i, _ in block]) for e in (2, 3)]
    with closing(BatchPipeline(digits, made, CPU, 4, strategy=strategy)) as feed:
        next(feed.batches(2))
        found = [torch.cat([i.clone() for block in feed.batches(e) for i, _ in block]) for e in (2, 3)]
    assert [torch.equal(a, b) for a, b in zip(expected, found, strict=True)] == [True, True]


def test_the_strategy_changes_within_an_epoch_without_losing_a_batch(digits: Dataset, small_blocks: None) -> None:
    expected = epoch(digits, 24, augment=MOVED)[0]
    found, gone = [], []
    with closing(BatchPipeline(digits, planned(digits, 24, MOVED), CPU, 1)) as feed:
        for number, block in enumerate(feed.batches(1)):
            found += [i.clone() for i, _ in block]
            gone.append(feed._strategy)
            feed.selector.strategy = [THREAD, INLINE][number % 2]
    assert gone == [INLINE, THREAD] * 4 + [INLINE]
    assert torch.equal(torch.cat(found).permute(0, 2, 3, 1), expected)


def test_a_sample_left_alone_waits_for_another_epoch(digits: Dataset) -> None:
    assert epoch(digits, 5)[2] == [5] * 43
    assert epoch(digits, 216)[2] == [216]


def test_the_order_and_the_augmentation_follow_the_generators(digits: Dataset) -> None:
    moved = Augmentation(max_rotation=20)
    one, same, other = (epoch(digits, 32, seed, moved)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, epoch(digits, 32, 1)[0])


def test_the_time_waited_is_counted_once(digits: Dataset) -> None:
    feed = BatchPipeline(digits, planned(digits, 24, MOVED), CPU, 2)
    started = time.perf_counter()
    for _ in feed.batches(1):
        pass
    waited = feed.waited()
    assert 0 < waited < time.perf_counter() - started
    assert feed.waited() == 0


def test_the_first_block_is_no_part_of_a_speed(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert digits.path is not None
    slow = [0.5]
    real = BatchPipeline._prepare

    def prepare(self: BatchPipeline, block: Block, device: torch.device) -> torch.Tensor:
        time.sleep(slow.pop() if slow else 0)
        return real(self, block, device)

    monkeypatch.setattr(BatchPipeline, "_prepare", prepare)
    found = measure_throughput(
        TrainingConfig(tmp_path, digits.path, "resnet", 1, 0), {"width": 2, "batch_size": 24}, 0.05, batches=1
    )
    assert found.rate > 0
    assert found.waited < 1


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_copy_made_block_by_block_is_whole(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    images = np.random.default_rng(0).integers(0, 256, (23, 5, 4, 3)).astype(dtype)
    assert len(blocks.blocks(images)) > 2
    copy = copy_to_device(images, CPU)
    assert np.array_equal(copy.numpy(), images)
    assert copy.numpy().dtype == images.dtype


def test_images_of_the_copy_are_those_of_the_map_and_the_copy_can_be_let_go(digits: Dataset) -> None:
    block = Block(np.array([7, 0, 7, 250]), MOVED.draw(4, 1, torch.Generator().manual_seed(0)), last=True)
    feed = BatchPipeline(digits, planned(digits, 24, MOVED), CPU, 1)
    found = []
    for copy in (None, [copy_to_device(digits.inputs, CPU)], None):  # as on a GPU with room, and after
        feed.close()
        feed._resident = copy
        found.append(feed._prepare(block, CPU)[0])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    feed._resident = [copy_to_device(digits.inputs, CPU)]
    feed.close()
    assert feed._resident is None


def test_what_is_on_its_device_already_is_not_copied() -> None:
    there = torch.rand(3)
    assert to_device(there, CPU) is there


@pytest.fixture
def masked() -> Dataset:
    """Images whose channel is their mask times 50, in large patches; the last row of the mask is ignored."""
    rng = np.random.default_rng(0)
    patches = np.repeat(np.repeat(rng.integers(0, 4, (30, 4, 3), np.uint8), 8, 1), 8, 2)
    masks = patches.copy()
    masks[:, -1] = IGNORED
    task = Task("segmentation", (32, 24, 4), tuple("abcd"))
    split = np.repeat(np.arange(3, dtype=np.uint8), [24, 3, 3])
    return Dataset("masked", patches[..., None] * np.uint8(50), masks, split, task, (0.0,), (1.0,))


def masked_epoch(data: Dataset, augment: Augmentation, strategy: LoadingStrategy) -> list[torch.Tensor]:
    """Images, as multiples of 50, and masks of one epoch."""
    with closing(BatchPipeline(data, planned(data, 5, augment), CPU, 1, strategy=strategy)) as feed:
        parts = [(i.clone(), m.clone()) for block in feed.batches(1) for i, m in block]
    return [torch.cat([i[:, 0] / 50 for i, _ in parts]), torch.cat([m for _, m in parts])]


@pytest.mark.parametrize("strategy", [INLINE, THREAD])
def test_masks_come_with_their_images(masked: Dataset, strategy: LoadingStrategy) -> None:
    images, masks = masked_epoch(masked, Augmentation(), strategy)
    assert masks.dtype == torch.uint8
    assert torch.equal(images[:, :-1], masks[:, :-1].float())
    assert (masks[:, -1] == IGNORED).all()


@pytest.mark.parametrize("strategy", [INLINE, THREAD])
@pytest.mark.parametrize("copied", [False, True])
def test_masks_move_with_their_images(masked: Dataset, strategy: LoadingStrategy, copied: bool) -> None:
    moved = Augmentation(max_rotation=20, max_zoom=0.2, max_translation=0.2, min_crop=0.5, flip=True, colour=0.0)
    images, masks = masked_epoch(masked, moved, strategy)
    still = masked_epoch(masked, Augmentation(), strategy)[1]
    assert (masks != still).float().mean() > 0.3
    counted = masks != IGNORED
    assert (masks == IGNORED).sum() > (still == IGNORED).sum()  # from outside
    # pixels at the edges of patches are between two values
    assert (images[counted] - masks[counted]).abs().le(0.02).float().mean() > 0.75
    blank = masked_epoch(masked, Augmentation(min_crop=0.5, flip=True), strategy)
    assert (blank[0][blank[1] != IGNORED] - blank[1][blank[1] != IGNORED]).abs().lt(1.0).float().mean() > 0.9


def test_masks_on_the_device_are_those_of_the_map(masked: Dataset) -> None:
    moved = Augmentation(max_rotation=20, flip=True)
    block = Block(np.array([7, 0, 7, 20]), moved.draw(4, 1, torch.Generator().manual_seed(0)), last=True)
    feed = BatchPipeline(masked, planned(masked, 24, moved), CPU, 1)
    images, masks = feed._prepare(block, CPU)
    feed._resident = [copy_to_device(array, CPU) for array in (masked.inputs, masked.targets)]
    again = feed._prepare(block, CPU)
    assert masks is not None
    assert again[1] is not None
    assert torch.equal(images, again[0])
    assert torch.equal(masks, again[1])
    feed.close()


def test_masks_are_never_in_memory_as_a_whole(masked: Dataset) -> None:
    feed = BatchPipeline(masked, planned(masked, 5, Augmentation()), CPU, 1)
    assert feed._targets is None
    feed.close()
