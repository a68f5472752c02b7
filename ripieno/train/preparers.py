"""Who prepares blocks within the trainer's process: the trainer itself, or a thread beside it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ripieno.train.plan import Block, Preparation
from ripieno.types import Dataset


class Preparer(Protocol):
    """Takes blocks, gives their images (samples, height, width, channels) back in the same order."""

    @property
    def ahead(self) -> int:
        """How many blocks may be out."""
        ...

    def submit(self, block: Block) -> None:
        """Let a block be prepared."""
        ...

    def take(self) -> Tensor:
        """The oldest block's images, normalised; they may be overwritten from the next call on."""
        ...

    def reset(self) -> None:
        """Forget what is out."""
        ...


class Inline:
    """The trainer prepares, on its device, when it asks. On a GPU the images lie there when there is room."""

    def __init__(self, dataset: Dataset, prepare: Preparation, device: torch.device) -> None:
        self._images, self._prepare, self._device = dataset.images, prepare, device
        self._out: deque[Block] = deque()
        self._spans: list[tuple[Any, Any]] = []
        self._resident: Tensor | None = None
        if device.type == "cuda" and self._images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
            self._resident = torch.from_numpy(np.array(self._images)).to(device)

    ahead = 1

    def submit(self, block: Block) -> None:
        """See `Preparer.submit`."""
        self._out.append(block)

    def take(self) -> Tensor:
        """See `Preparer.take`."""
        block = self._out.popleft()
        if self._device.type == "cpu":
            return self._prepare(torch.from_numpy(self._images[block.rows]), block.draws)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        if self._resident is not None:
            images = self._resident[torch.from_numpy(block.rows).to(self._device)]
        else:
            images = torch.from_numpy(self._images[block.rows]).to(self._device)
        images = self._prepare(images, block.draws)
        end.record()
        self._spans.append((begin, end))
        return images

    def reset(self) -> None:
        """See `Preparer.reset`."""
        self._out.clear()

    def seconds(self) -> float:
        """How long the GPU prepared since the last call; all of it must have been done."""
        total = sum(begin.elapsed_time(end) for begin, end in self._spans) / 1000
        self._spans = []
        return float(total)


class Beside:
    """A thread prepares on the CPU; PyTorch gives Python's lock back while it computes."""

    ahead = 2

    def __init__(self, dataset: Dataset, prepare: Preparation) -> None:
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
        """End the thread, and whatever is out."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._out.clear()

    def _one(self, block: Block) -> Tensor:
        return self._prepare(torch.from_numpy(self._images[block.rows]), block.draws)
