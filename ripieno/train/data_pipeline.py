"""The preprocessor beside the trainer (section 2.2): batches of a trial, ready on its device when they are asked for.

Theory of operation. `Plan` says what the batches are, `Trials` which way they are prepared: by the trainer between its
steps, by a thread, or by loader processes (`Crew`), the latter two some blocks ahead, into the next epoch too, so that
they work while the trainer validates. On a GPU the images move there once, as they are (uint8), when they fit in half
of its free memory, and "inline" means there. Elsewhere they stay in the memory map, whose pages all trials of the
machine share. Ways change between blocks; on a CPU they change nothing else (on a GPU: the last bits, where augmented).
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
from ripieno.train.crew import LoadersDied, crew, dismiss
from ripieno.train.preparers import InlinePreparer, Preparer, ThreadPreparer
from ripieno.train.stall_timer import StallTimer
from ripieno.train.ways import INLINE, Found, Trials, Way, ways
from ripieno.types import Dataset

Batches = list[tuple[Tensor, Tensor]]


class BatchPipeline:
    """The training split of `dataset` as `plan` says, for a trainer on `device` up to epoch `last`.

    `spare` is the number of cores that may prepare data beside the trainer. `record` is where the way chosen is kept
    for the next trial like this one. A `way` given is taken, not measured.
    """

    def __init__(
        self,
        dataset: Dataset,
        plan: EpochBatches,
        device: torch.device,
        last: int,
        spare: int = 0,
        record: Path | None = None,
        way: Way | None = None,
    ) -> None:
        self.dataset, self.plan, self.device, self.last = dataset, plan, device, last
        self._labels = torch.from_numpy(np.array(dataset.labels))
        self._record = record
        candidates = ways(spare if dataset.path else 0) if way is None else (way,)
        self.trials = Trials(candidates, _known(record) if len(candidates) > 1 else None)
        self._inline = InlinePreparer(dataset, self._preparation(device), device)
        self._way = INLINE
        self._preparer: Preparer = self._inline
        self._blocks: Iterator[Block] = iter(())
        self._pending: deque[Block] = deque()
        self._next = 0
        self._waits = StallTimer(device)

    def _preparation(self, device: torch.device) -> InputTransform:
        mean, std = self.dataset.mean, [s or 1.0 for s in self.dataset.std]
        return InputTransform(self.plan.augment, torch.tensor(mean, device=device), torch.tensor(std, device=device))

    def batches(self, epoch: int) -> Iterator[Batches]:
        """Blocks of `epoch`, each a list of batches: normalised images NCHW (channels-last) and labels.

        They may be overwritten once the next block is asked for.
        """
        if epoch != self._next:
            self._pending.clear()
            # of the plan alone: blocks that referred to this feed would keep it, and all it has on the GPU, alive
            self._blocks = itertools.chain.from_iterable(map(self.plan.blocks, range(epoch, self.last + 1)))
            self._go(self._way)
        last = False
        while not last:
            started = time.perf_counter()
            self._waits.begin()
            self._follow()
            block, images = self._take()
            labels = to_device(self._labels[torch.from_numpy(block.rows)], self.device)
            batches = (torch.split(t, self.plan.batch_size) for t in (images.permute(0, 3, 1, 2), labels))
            self._waits.end()
            last = block.last
            self._next = epoch + 1 if last else 0  # an epoch left in the middle starts again
            yield list(zip(*batches, strict=True))
            self._count(len(block.rows), started)

    def waited(self) -> float:
        """Seconds without a batch since the last call; to be called when the device has done its work."""
        return self._waits.seconds()

    def close(self) -> None:
        """Let go of the thread and of what lies on the GPU; loaders stay for the next job of this process."""
        self._pending.clear()
        self._blocks = iter(())
        self._go(INLINE)
        self._inline.close()

    def _count(self, images: int, started: float) -> None:
        """A block was trained on: what its way is worth."""
        if self.trials.settled or self._way != self.trials.way:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.trials.add(images, time.perf_counter() - started, self._waits.last())
        if self.trials.settled and self._record is not None:
            files.write_json(self._record, Found(self.trials.way, tuple(self.trials.speeds)))

    def _take(self) -> tuple[Block, Tensor]:
        """The next block; those after it are handed out."""
        try:
            self._fill()
            images = self._preparer.take()
            block = self._pending.popleft()
            self._fill()
        except LoadersDied:  # all they had is prepared here, like all that follows
            dismiss()
            self.trials.drop()
            self._way, self._preparer = INLINE, self._inline
            self._inline.reset()
            for block in self._pending:
                self._inline.submit(block)
            images, block = self._inline.take(), self._pending.popleft()
        return block, to_device(images, self.device)

    def _fill(self) -> None:
        while len(self._pending) < self._preparer.ahead and (block := next(self._blocks, None)) is not None:
            self._pending.append(block)
            self._preparer.submit(block)

    # ways

    def _follow(self) -> None:
        """Go over to the way chosen, once it has started."""
        way = self.trials.way
        if way == self._way:
            return
        if way.loaders:
            assert self.dataset.path is not None
            if self._way.loaders:  # of another number: they end
                self._go(INLINE)
            try:
                found = crew(self.dataset.path, self.dataset.input, way.loaders)
                # as many blocks as more loaders had pending may be more than these can hold
                if not found.ready() or len(self._pending) > found.ahead:
                    return
            except LoadersDied:
                dismiss()
                self.trials.drop()
                return
        self._go(way)

    def _go(self, way: Way) -> None:
        """Let `way` prepare what is pending and all that follows."""
        try:
            self._preparer.reset()
            self._way, self._preparer = way, self._preparer_of(way)
            for block in self._pending:
                self._preparer.submit(block)
        except LoadersDied:
            dismiss()
            self.trials.drop()
            self._go(INLINE)

    def _preparer_of(self, way: Way) -> Preparer:
        if way.name == "thread":
            return ThreadPreparer(self.dataset, self._preparation(torch.device("cpu")))
        if not way.loaders:
            return self._inline
        assert self.dataset.path is not None
        found = crew(self.dataset.path, self.dataset.input, way.loaders)
        found.fit(self.plan.block, self.plan.augment)
        return found


def _known(record: Path | None) -> Way | None:
    """The way an earlier trial found best."""
    if record is None or not record.exists():
        return None
    try:
        return files.read_json(record, Found).way
    except RipienoError:  # torn or of another version: measured again
        return None
