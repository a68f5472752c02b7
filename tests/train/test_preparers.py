from __future__ import annotations

import numpy as np
import pytest
import torch

from ripieno.data import samples
from ripieno.data.augment import Augmentation
from ripieno.train.batching import Block, InputTransform, to_device
from ripieno.train.preparers import InlinePreparer, copy_to_device
from ripieno.types import Dataset

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_copy_made_block_by_block_is_whole(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "BLOCK_BYTES", 700)
    images = np.random.default_rng(0).integers(0, 256, (23, 5, 4, 3)).astype(dtype)
    assert len(samples.blocks(images)) > 2
    copy = copy_to_device(images, CPU)
    assert np.array_equal(copy.numpy(), images)
    assert copy.numpy().dtype == images.dtype


def test_images_of_the_copy_are_those_of_the_map_and_the_copy_can_be_let_go(digits: Dataset) -> None:
    change = Augmentation(max_rotation=20, flip=True)
    draws = change.draw(4, 1, torch.Generator().manual_seed(0))
    block = Block(np.array([7, 0, 7, 250]), draws, last=True)
    inline = InlinePreparer(digits, InputTransform(change, torch.tensor(digits.mean), torch.tensor(digits.std)), CPU)
    found = []
    for copy in (None, copy_to_device(digits.images, CPU), None):  # as on a GPU with room, and after
        inline.close()
        inline._resident = copy
        inline.submit(block)
        found.append(inline.take())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    inline._resident = copy_to_device(digits.images, CPU)
    inline.close()
    assert inline._resident is None


def test_what_is_on_its_device_already_is_not_copied() -> None:
    there = torch.rand(3)
    assert to_device(there, CPU) is there
