"""The training images of a trial, shuffled, augmented and normalised on its device, in blocks of many batches.

On a GPU the images move there once, as they are (uint8), when they fit in half of its free memory. On a CPU they stay
in the memory map, whose pages all trials of the machine share; a block is gathered from it at a time. A block is
augmented and normalised whole: on tiny images the overhead of a call weighs more than its work.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ripieno.data.augment import Augmentation
from ripieno.models.build import Network
from ripieno.types import Dataset

BLOCK_BYTES = 32 << 20
"""Most bytes of a block once it is float32."""


class Feed:
    """The training split of `dataset` for `network` on `device`."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self.images = dataset.images
        self.rows = dataset.rows("train")
        self.labels = torch.from_numpy(dataset.labels[self.rows]).to(device)
        self.device = device
        self.resident: Tensor | None = None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if len(self.rows) * self.images[0].nbytes <= free // 2:
                self.resident = torch.from_numpy(self.images[self.rows]).to(device)

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch."""
        return -(-self._used(batch_size) // batch_size)

    def _used(self, batch_size: int) -> int:
        """Samples of an epoch: a last batch of one, on which a batch norm may fail, is left out (others each time)."""
        samples = len(self.rows)
        return samples - 1 if samples % batch_size == 1 and samples > 1 else samples

    def batches(
        self,
        network: Network,
        augment: Augmentation,
        batch_size: int,
        shuffle: np.random.Generator,
        draws: torch.Generator,
    ) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Blocks of one epoch, each a list of batches: normalised images NCHW and labels."""
        order = shuffle.permutation(len(self.rows))[: self._used(batch_size)]
        sample_bytes = self.images[0].size * 4
        block = max(1, BLOCK_BYTES // (sample_bytes * batch_size)) * batch_size
        labels = self.labels[torch.from_numpy(order).to(self.device)]
        for start in range(0, len(order), block):
            images = self._gather(order[start : start + block])
            if not augment.is_identity:
                images = augment(images.permute(0, 3, 1, 2).float(), draws).permute(0, 2, 3, 1).contiguous()
            parts = torch.split(network.normalise(images), batch_size)
            yield list(zip(parts, torch.split(labels[start : start + block], batch_size), strict=True))

    def _gather(self, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        """Images (samples, height, width, channels) at positions `order` of the split, on the device."""
        if self.resident is not None:
            return self.resident[torch.from_numpy(order).to(self.device)]
        return torch.from_numpy(self.images[self.rows[order]]).to(self.device)
