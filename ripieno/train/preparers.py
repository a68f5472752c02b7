"""Preparation of blocks within the trainer's process: by the trainer itself or by a thread."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripieno.data.samples import blocks
from ripieno.train.batching import Block, InputTransform, to_device
from ripieno.types import Dataset


class Preparer(Protocol):
    """Receives blocks and returns their images (samples, height, width, channels) in the same order."""

    @property
    def ahead(self) -> int:
        """Number of blocks that may be in preparation."""
        ...

    def submit(self, block: Block) -> None:
        """Start the preparation of a block."""
        ...

    def take(self) -> Tensor:
        """Return the oldest block's images, normalised; the next call may overwrite them."""
        ...

    def reset(self) -> None:
        """Discard the blocks in preparation."""
        ...


class InlinePreparer:
    """Prepares a block on the trainer's device when it is requested. On a GPU the images stay there if they fit."""

    def __init__(self, dataset: Dataset, prepare: InputTransform, device: torch.device) -> None:
        self._images, self._prepare, self._device = dataset.images, prepare, device
        self._out: deque[Block] = deque()
        self._resident: Tensor | None = None
        if device.type == "cuda" and self._images.nbytes <= free_bytes(device) // 2:
            self._resident = copy_to_device(self._images, device)

    ahead = 1

    def submit(self, block: Block) -> None:
        """See `Preparer.submit`."""
        self._out.append(block)

    def take(self) -> Tensor:
        """See `Preparer.take`."""
        block = self._out.popleft()
        if self._resident is not None:
            images = self._resident[to_device(torch.from_numpy(block.rows), self._device)]
        else:
            images = to_device(torch.from_numpy(self._images[block.rows]), self._device)
        return self._prepare(images, block.draws)

    def reset(self) -> None:
        """See `Preparer.reset`."""
        self._out.clear()

    def close(self) -> None:
        """Free the images on the GPU: the next trial of this process needs the memory."""
        self._out.clear()
        self._resident = None


class ThreadPreparer:
    """Prepares blocks in a thread, on the CPU; PyTorch releases the interpreter's lock while it computes."""

    ahead = 2

    def __init__(self, dataset: Dataset, prepare: InputTransform) -> None:
        self._images, self._prepare = dataset.images, prepare
        self._thread = ThreadPoolExecutor(1, "loader", torch.set_num_threads, (1,))
        self._out: deque[Future[Tensor]] = deque()

    def submit(self, block: Block) -> None:
        """See `Preparer.submit`."""
        self._out.append(self._thread.submit(self._one, block))

    def take(self) -> Tensor:
        """See `Preparer.take`."""
        return self._out.popleft().result()

    def reset(self) -> None:
        """End the thread and discard the blocks in preparation."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._out.clear()

    def _one(self, block: Block) -> Tensor:
        return self._prepare(torch.from_numpy(self._images[block.rows]), block.draws)


def copy_to_device(images: NDArray[Any], device: torch.device) -> Tensor:
    """Copy `images` to `device` block by block, so that mapped images are never in memory as a whole."""
    copy = torch.empty(images.shape, dtype=getattr(torch, str(images.dtype)), device=device)
    starts = blocks(images)
    for start in starts:
        copy[start : start + starts.step] = torch.from_numpy(np.array(images[start : start + starts.step]))
    return copy


def free_bytes(device: torch.device) -> int:
    """Return the bytes that this process may still use on a GPU: free ones, and those cached by torch."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
