"""Batches of a trial: images, their order and their augmentation, independent of the process that prepares them.

All randomness is drawn here, in the trainer. The rest, `InputTransform`, is a function of an image and its own row of
draws: its result has the same bits in blocks of any size, in any process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripieno.data.series_augment import SeriesAugmentation
from ripieno.models.build import channels_first
from ripieno.train.augmentation import InputAugmentation
from ripieno.train.device_copy import to_device
from ripieno.train.policy_augmentation import PolicyAugmentation
from ripieno.types import Dataset

BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 32 << 20}
"""Most bytes of a float32 block, by type of device. A block is augmented in one call: on tiny images the overhead of a
call exceeds its work. On a CPU, blocks of 32 MiB exceed the caches, and take two to three times as long."""
Generators = Callable[[int], tuple[np.random.Generator, torch.Generator]]
"""Function of an epoch that returns new generators: for the order of its images, and for their augmentation."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some consecutive batches of an epoch."""

    rows: NDArray[np.int64]
    """rows of the images in the data set"""
    draws: Tensor | None
    """(samples, numbers) for `Augmentation.apply`, on the CPU; None without augmentation"""
    last: bool
    """True for the last block of an epoch"""


class EpochBatches:
    """The training split of `dataset` in batches of `batch_size`, epoch after epoch."""

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        augment: InputAugmentation,
        generators: Generators,
        device: str = "cpu",
        shares: NDArray[np.float64] | None = None,
        least_samples: int = 0,
    ) -> None:
        """Define the batches; with `shares`, the probability of each training sample, they are drawn with replacement.

        Without it each sample occurs once in an epoch, or as often as gives nearest to `least_samples`.
        """
        self.augment, self.batch_size = augment, batch_size
        self.rows = dataset.rows("train")
        self.channels = dataset.inputs.shape[-1]
        self._generators, self._shares = generators, shares
        # drop a last batch of one sample, on which a batch norm may fail (another sample in each epoch)
        self.passes = count_passes(len(self.rows), least_samples)
        samples = len(self.rows) * self.passes
        self.samples = samples - 1 if samples % batch_size == 1 and samples > 1 else samples
        bytes_a_batch = dataset.inputs[0].size * 4 * batch_size
        self.block = max(1, BLOCK_BYTES[device] // bytes_a_batch) * batch_size

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.samples // self.batch_size)

    def blocks(self, epoch: int) -> Iterator[Block]:
        """Yield the blocks of `epoch`, in order."""
        shuffle, draws = self._generators(epoch)
        if self._shares is None:
            passes = [shuffle.permutation(len(self.rows)) for _ in range(self.passes)]
            order = self.rows[np.concatenate(passes)[: self.samples]]
        else:
            order = shuffle.choice(self.rows, self.samples, p=self._shares)
        for start in range(0, len(order), self.block):
            rows = order[start : start + self.block]
            drawn = None if self.augment.is_identity else self.augment.draw(len(rows), self.channels, draws)
            yield Block(rows, drawn, start + self.block >= len(order))


def count_passes(samples: int, least_samples: int) -> int:
    """Return how often an epoch uses each of `samples`, so that they are nearest to `least_samples`; at least once."""
    return max(1, round(least_samples / max(1, samples)))


@dataclass(frozen=True, eq=False)
class InputTransform:
    """Augmentation and normalisation of images or series before a network's body, on one device."""

    augment: InputAugmentation
    mean: Tensor
    """(channels,), in the unit of the images, like `std`"""
    std: Tensor

    def __call__(self, images: Tensor, draws: Tensor | None) -> Tensor:
        """Augment `images` (samples, ..., channels) by `draws` and normalise them: float32, same shape."""
        if draws is not None:
            changed = self.augment.apply(channels_first(images).float(), self._placed(draws, images.device))
            images = changed.movedim(1, -1).contiguous()
        return (images.to(torch.float32) - self.mean) / self.std

    def masks(self, masks: Tensor, draws: Tensor | None) -> Tensor:
        """Return `masks` (samples, height, width) moved as `draws` move their images: uint8, same shape."""
        if draws is None or isinstance(self.augment, SeriesAugmentation):
            return masks
        return self.augment.apply_to_masks(masks, self._placed(draws, masks.device), len(self.mean))

    def _placed(self, draws: Tensor, device: torch.device) -> Tensor:
        """Return `draws` where they are needed: a policy orders its samples on the CPU."""
        return draws if isinstance(self.augment, PolicyAugmentation) else to_device(draws, device)
