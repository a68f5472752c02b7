"""Data pipeline of a trial (section 2.2): batches that are ready on its device when the trainer needs them.

Theory of operation. `EpochBatches` defines the batches, `StrategySelector` decides where they are prepared: by the
trainer between its steps, or by a thread some blocks ahead, into the next epoch too: it works during validation.
On a GPU the images are copied there once, as they are (uint8), when they fit in half of its free memory, and "inline"
means there. Otherwise they stay in the memory map; all trials of the machine share its pages. Strategies change
between blocks; on a CPU they change nothing else (on a GPU: the last bits, where augmented).
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ripieno import files
from ripieno.errors import RipienoError
from ripieno.train.batching import Block, EpochBatches, InputTransform, to_device
from ripieno.train.loading_strategy import (
    INLINE,
    THREAD,
    LoadingStrategy,
    StrategyRecord,
    StrategySelector,
    strategies,
)
from ripieno.train.preparers import InlinePreparer, Preparer, ThreadPreparer
from ripieno.train.stall_timer import StallTimer
from ripieno.types import Dataset

Batches = list[tuple[Tensor, Tensor]]


class BatchPipeline:
    """Batches of the training split of `dataset` as `plan` defines them, for a trainer on `device` up to epoch `last`.

    `spare` is the number of cores free for preparing data. `record` is the file that keeps the strategy chosen for the
    next trial of this size. A given `strategy` is used without measuring.
    """

    def __init__(
        self,
        dataset: Dataset,
        plan: EpochBatches,
        device: torch.device,
        last: int,
        spare: int = 0,
        record: Path | None = None,
        strategy: LoadingStrategy | None = None,
    ) -> None:
        self.dataset, self.plan, self.device, self.last = dataset, plan, device, last
        self._labels = torch.from_numpy(np.array(dataset.labels))
        self._record = record
        candidates = strategies(spare) if strategy is None else (strategy,)
        self.selector = StrategySelector(candidates, _read_record(record) if len(candidates) > 1 else None)
        self._inline = InlinePreparer(dataset, self._transform(device), device)
        self._strategy = INLINE
        self._preparer: Preparer = self._inline
        self._blocks: Iterator[Block] = iter(())
        self._pending: deque[Block] = deque()
        self._next = 0
        self._stalls = StallTimer(device)

    def _transform(self, device: torch.device) -> InputTransform:
        mean, std = self.dataset.mean, [s or 1.0 for s in self.dataset.std]
        return InputTransform(self.plan.augment, torch.tensor(mean, device=device), torch.tensor(std, device=device))

    def batches(self, epoch: int) -> Iterator[Batches]:
        """Yield the blocks of `epoch`, each a list of batches: normalised images NCHW (channels-last) and labels.

        A block may be overwritten once the next one is requested.
        """
        if epoch != self._next:
            self._pending.clear()
            # of the plan alone: blocks that referred to this pipeline would keep it, and its GPU memory, alive
            self._blocks = itertools.chain.from_iterable(map(self.plan.blocks, range(epoch, self.last + 1)))
            self._use(self._strategy)
        last = False
        while not last:
            started = time.perf_counter()
            self._stalls.begin()
            if self._strategy != self.selector.strategy:
                self._use(self.selector.strategy)
            block, images = self._take()
            labels = to_device(self._labels[torch.from_numpy(block.rows)], self.device)
            batches = (torch.split(t, self.plan.batch_size) for t in (images.permute(0, 3, 1, 2), labels))
            self._stalls.end()
            last = block.last
            self._next = epoch + 1 if last else 0  # an epoch left in the middle starts again
            yield list(zip(*batches, strict=True))
            self._count(len(block.rows), started)

    def waited(self) -> float:
        """Return the seconds without a batch since the last call; call it when the device has done its work."""
        return self._stalls.seconds()

    def close(self) -> None:
        """End the thread and free the memory on the GPU."""
        self._pending.clear()
        self._blocks = iter(())
        self._use(INLINE)
        self._inline.close()

    def _count(self, images: int, started: float) -> None:
        """Add the block just trained on to the timing of its strategy."""
        if self.selector.settled or self._strategy != self.selector.strategy:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.selector.add(images, time.perf_counter() - started, self._stalls.last())
        if self.selector.settled and self._record is not None:
            files.write_json(self._record, StrategyRecord(self.selector.strategy, tuple(self.selector.timings)))

    def _take(self) -> tuple[Block, Tensor]:
        """Return the next block, and submit those after it."""
        self._fill()
        images = self._preparer.take()
        block = self._pending.popleft()
        self._fill()
        return block, to_device(images, self.device)

    def _fill(self) -> None:
        while len(self._pending) < self._preparer.ahead and (block := next(self._blocks, None)) is not None:
            self._pending.append(block)
            self._preparer.submit(block)

    def _use(self, strategy: LoadingStrategy) -> None:
        """Prepare pending and later blocks by `strategy`."""
        self._preparer.reset()
        self._strategy = strategy
        if strategy == THREAD:
            self._preparer = ThreadPreparer(self.dataset, self._transform(torch.device("cpu")))
        else:
            self._preparer = self._inline
        for block in self._pending:
            self._preparer.submit(block)


def _read_record(record: Path | None) -> LoadingStrategy | None:
    """Return the strategy that an earlier trial found best; None when it is unknown."""
    if record is None or not record.exists():
        return None
    try:
        return files.read_json(record, StrategyRecord).way
    except RipienoError:  # torn or of another version: measured again
        return None
