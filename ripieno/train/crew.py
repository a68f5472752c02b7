"""Loader processes as the trainer sees them: blocks go out, prepared images come back in order.

Theory of operation. Blocks lie in a memfd, `DEPTH` of them for each loader: rows and draws written by the trainer,
images by the loader; a line through a pipe says which. Nothing is pickled and nothing copied: batches are views of that
memory. It has no name, so it goes with its processes. Loaders end when their input does, so they outlive no trainer,
killed or not. They take 2 seconds to start and so stay for the next job of the same worker process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import torch
from torch import Tensor

from ripieno.data.augment import Augmentation
from ripieno.resources import thread_variables
from ripieno.train.batching import Block
from ripieno.train.loader import Desk, Order
from ripieno.types import Input

DEPTH = 3
"""Blocks of a loader: one that is trained on, one that is ready, one in preparation."""


class LoadersDied(Exception):  # noqa: N818
    """A loader process ended by itself, killed perhaps."""


class Crew:
    """`loaders` processes that prepare blocks of the data set in `folder`, with one core each."""

    def __init__(self, folder: Path, input: Input, loaders: int) -> None:
        self.shape = input.shape
        self.descriptor = os.memfd_create("ripieno-blocks", os.MFD_CLOEXEC)
        self._memory: mmap.mmap | None = None
        self._room = 0
        self._augment = Augmentation()
        self._sent = 0
        self._out: deque[tuple[int, Desk]] = deque()
        call = "from ripieno.train.loader import main; main()"
        # a user's own modules are not needed there, but ours must be found as they were here
        command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {call}"]
        self.processes = [
            subprocess.Popen(
                [*command, str(folder), str(self.descriptor)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(self.descriptor,),
                env={**os.environ, **thread_variables(1), "CUDA_VISIBLE_DEVICES": ""},
            )
            for _ in range(loaders)
        ]
        self._starting = set(range(loaders))

    @property
    def ahead(self) -> int:
        """How many blocks may be out; the last one taken is in use still."""
        return DEPTH * len(self.processes) - 1

    def ready(self) -> bool:
        """Whether all have started. Raises LoadersDied."""
        for number in list(self._starting):
            stream = self.processes[number].stdout
            assert stream is not None
            if select.select([stream], [], [], 0)[0]:
                self._hear(number)
                self._starting.discard(number)
        return not self._starting

    def fit(self, samples: int, augment: Augmentation) -> None:
        """Make room for blocks of as many samples, to be changed by `augment`; forget what is out.

        What was taken before must not be used after. Raises LoadersDied.
        """
        self.reset()
        self._augment = augment
        self._room = Desk.bytes(samples, self.shape[-1] + 7, self.shape)
        size = self._room * DEPTH * len(self.processes)
        if self._memory is None or len(self._memory) < size:
            os.ftruncate(self.descriptor, size)
            self._memory = mmap.mmap(self.descriptor, size)

    def submit(self, block: Block) -> None:
        """Let a block be prepared. Raises LoadersDied."""
        assert self._memory is not None, "fit comes first"
        assert len(self._out) < self.ahead
        slot = self._sent % (DEPTH * len(self.processes))
        number = self._sent % len(self.processes)
        numbers = 0 if block.draws is None else block.draws.shape[1]
        order = Order(slot * self._room, len(block.rows), numbers, self._augment)
        desk = Desk(self._memory, order.offset, order.samples, order.draws, self.shape)
        desk.rows[:] = block.rows
        if block.draws is not None:
            desk.draws[:] = block.draws.numpy()
        stream = self.processes[number].stdin
        assert stream is not None
        try:
            stream.write(msgspec.json.encode(order) + b"\n")
            stream.flush()
        except OSError as error:
            raise LoadersDied(str(error)) from error
        self._sent += 1
        self._out.append((number, desk))

    def take(self) -> Tensor:
        """The oldest block's images; they may be overwritten from the next call on. Raises LoadersDied."""
        number, desk = self._out[0]
        while number in self._starting:
            self._hear(number)
            self._starting.discard(number)
        self._hear(number)
        self._out.popleft()
        return torch.from_numpy(np.asarray(desk.images))

    def reset(self) -> None:
        """Forget what is out."""
        while self._out:
            self.take()

    def _hear(self, number: int) -> None:
        stream = self.processes[number].stdout
        assert stream is not None
        if not stream.readline():
            raise LoadersDied(f"loader {self.processes[number].pid} ended with {self.processes[number].wait()}")

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(OSError):  # what was written last has no reader any more
                    stream.close()
            process.wait()
        os.close(self.descriptor)
        self._memory = None
        self._out.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()


_kept: dict[tuple[Path, int], Crew] = {}


def crew(folder: Path, input: Input, loaders: int) -> Crew:
    """The crew of this process for `folder`: at most one is kept, for its next job."""
    key = (folder, loaders)
    if key not in _kept:
        dismiss()
        _kept[key] = Crew(folder, input, loaders)
    return _kept[key]


def dismiss() -> None:
    """End the crew of this process, if there is one."""
    while _kept:
        _kept.popitem()[1].close()
