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
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripieno import files
from ripieno.data.blocks import blocks
from ripieno.errors import RipienoError
from ripieno.models.build import channels_first
from ripieno.train.batching import Block, EpochBatches, InputTransform
from ripieno.train.device_copy import to_device
from ripieno.train.loading_strategy import INLINE, THREAD, LoadingStrategy, StrategyRecord, StrategySelector, strategies
from ripieno.train.stall_timer import StallTimer
from ripieno.types import Dataset

_Prepared = tuple[Tensor, Tensor | None]
"""Images of a block, and its masks where the targets are masks."""
AHEAD = 2
"""Number of blocks that a thread prepares in advance."""
_CPU = torch.device("cpu")


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
        has_masks = dataset.targets.ndim > 2
        self._targets = None if has_masks else torch.from_numpy(np.array(dataset.targets))
        self._record = record
        candidates = strategies(spare) if strategy is None else (strategy,)
        self.selector = StrategySelector(candidates, _read_record(record) if len(candidates) > 1 else None)
        mean, std = dataset.mean, [s or 1.0 for s in dataset.std]
        self._transforms = {
            where: InputTransform(plan.augment, torch.tensor(mean, device=where), torch.tensor(std, device=where))
            for where in {device, _CPU}
        }
        kept = [dataset.inputs, dataset.targets] if has_masks else [dataset.inputs]
        fits = device.type == "cuda" and sum(array.nbytes for array in kept) <= free_bytes(device) // 2
        self._resident = [copy_to_device(array, device) for array in kept] if fits else None
        self._strategy = INLINE
        self._thread: ThreadPoolExecutor | None = None
        self._blocks: Iterator[Block] = iter(())
        self._pending: deque[tuple[Block, Future[_Prepared] | None]] = deque()
        self._next = 0
        self._stalls = StallTimer(device)

    def batches(self, epoch: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Yield the blocks of `epoch`, each a list of batches: normalised inputs, channels first, and targets.

        Masks are moved as their images are.
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
            block, images, masks = self._take()
            targets = masks if self._targets is None else self._targets[torch.from_numpy(block.rows)]
            assert targets is not None
            targets = to_device(targets, self.device)
            batches = (torch.split(t, self.plan.batch_size) for t in (channels_first(images), targets))
            self._stalls.end()
            last = block.last
            self._next = epoch + 1 if last else 0  # an epoch left in the middle starts again
            yield list(zip(*batches, strict=True))
            self._count(len(block.rows), started)

    def waited(self) -> float:
        """Return the seconds without a batch since the last call; call it when the device has done its work."""
        return self._stalls.seconds()

    def close(self) -> None:
        """End the thread and free the memory on the GPU: the next trial of this process needs it."""
        self._pending.clear()
        self._blocks = iter(())
        self._use(INLINE)
        self._resident = None

    def _count(self, images: int, started: float) -> None:
        """Add the block just trained on to the timing of its strategy."""
        if self.selector.settled:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.selector.add(images, time.perf_counter() - started, self._stalls.last())
        if self.selector.settled and self._record is not None:
            files.write_json(self._record, StrategyRecord(self.selector.strategy, tuple(self.selector.timings)))

    def _take(self) -> tuple[Block, Tensor, Tensor | None]:
        """Return the next block, and submit those after it."""
        self._fill()
        block, future = self._pending.popleft()
        images, masks = self._prepare(block, self.device) if future is None else future.result()
        self._fill()
        return block, to_device(images, self.device), masks

    def _fill(self) -> None:
        while len(self._pending) < AHEAD and (block := next(self._blocks, None)) is not None:
            self._submit(block)

    def _submit(self, block: Block) -> None:
        future = None if self._thread is None else self._thread.submit(self._prepare, block, _CPU)
        self._pending.append((block, future))

    def _prepare(self, block: Block, device: torch.device) -> _Prepared:
        """Return the block's images (samples, height, width, channels), normalised, on `device`, and its masks."""
        arrays = [self.dataset.inputs] if self._targets is not None else [self.dataset.inputs, self.dataset.targets]
        if self._resident is not None and device == self.device:
            rows = to_device(torch.from_numpy(block.rows), device)
            images, *masks = (tensor[rows] for tensor in self._resident)
        else:
            images, *masks = (to_device(torch.from_numpy(array[block.rows]), device) for array in arrays)
        transform = self._transforms[device]
        return transform(images, block.draws), transform.masks(masks[0], block.draws) if masks else None

    def _use(self, strategy: LoadingStrategy) -> None:
        """Prepare pending and later blocks by `strategy`."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._strategy = strategy
        # PyTorch releases the interpreter's lock while it computes
        self._thread = ThreadPoolExecutor(1, "loader", torch.set_num_threads, (1,)) if strategy == THREAD else None
        pending = [block for block, _ in self._pending]
        self._pending.clear()
        for block in pending:
            self._submit(block)


def copy_to_device(images: NDArray[Any], device: torch.device) -> Tensor:
    """Copy `images` to `device` block by block, so that mapped images are never in memory as a whole."""
    copy = torch.empty(images.shape, dtype=getattr(torch, str(images.dtype)), device=device)
    for block in blocks(images):
        copy[block] = torch.from_numpy(np.array(images[block]))
    return copy


def free_bytes(device: torch.device) -> int:
    """Return the bytes that this process may still use on a GPU: free ones, and those cached by torch."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _read_record(record: Path | None) -> LoadingStrategy | None:
    """Return the strategy that an earlier trial found best; None when it is unknown."""
    if record is None or not record.exists():
        return None
    try:
        return files.read_json(record, StrategyRecord).way
    except RipienoError:  # torn or of another version: measured again
        return None
