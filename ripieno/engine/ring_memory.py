"""The buffers that workers share: samples are written once, predictions in place.

For worker processes they are in a memfd: anonymous memory with a file descriptor that the workers inherit. It has no
name, so it cannot outlive its processes, even if they are killed, and needs no unlinking.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import EngineError
from ripieno.types import Input

Slots = Sequence[tuple[int, int]]
"""Pairs (first slot, number of slots)."""
_ALIGNMENT = 4096
SMALL = 1 << 16
"""Largest copy, in bytes, that keeps the interpreter's lock. NumPy releases the lock for more than 500 numbers; another
Python thread would then delay a copy that takes a microsecond."""


class Memory:
    """Buffers `samples` (capacity, *input.shape) and `predictions` (members, capacity, *output) float32.

    With `shared`, both are in a new memfd with the descriptor `descriptor`; a given `descriptor` is mapped instead.
    Untouched pages cost nothing.
    """

    def __init__(
        self,
        capacity: int,
        members: int,
        output: tuple[int, ...],
        input: Input,
        *,
        shared: bool = False,
        descriptor: int = -1,
    ) -> None:
        dtype = np.dtype(input.dtype)
        row = int(np.prod(input.shape)) * dtype.itemsize
        edge = -(-capacity * row // _ALIGNMENT) * _ALIGNMENT
        numbers = members * capacity * math.prod(output)
        size = edge + 4 * numbers
        self.descriptor = descriptor
        if shared:
            self.descriptor = os.memfd_create("ripieno-ring", os.MFD_CLOEXEC)
            os.ftruncate(self.descriptor, size)
        buffer = mmap.mmap(self.descriptor, size)
        self._bytes, self._edge, self._row = memoryview(buffer), edge, row
        self._output, self._output_bytes = output, 4 * math.prod(output)
        self.samples: NDArray[np.generic] = np.frombuffer(buffer, dtype, capacity * row // dtype.itemsize).reshape(
            capacity, *input.shape
        )
        self.predictions: NDArray[np.float32] = np.frombuffer(buffer, np.float32, numbers, edge).reshape(
            members, capacity, *output
        )

    def write(self, slot: int, images: NDArray[np.generic]) -> None:
        """Copy the samples `images` to the slots from `slot` on."""
        if images.nbytes > SMALL or not images.flags.c_contiguous:
            self.samples[slot : slot + len(images)] = images
            return
        at = slot * self._row
        self._bytes[at : at + images.nbytes] = images.data.cast("B")

    def gather(self, slots: Slots) -> NDArray[np.generic]:
        """Return the samples of `slots` as one batch: a view when they are consecutive, else a copy."""
        if len(slots) == 1:
            slot, count = slots[0]
            return self.samples[slot : slot + count]
        return np.concatenate([self.samples[slot : slot + count] for slot, count in slots])

    def scatter(self, member: int, slots: Slots, predictions: NDArray[np.float32]) -> None:
        """Write the predictions of one batch. Raises EngineError when their shape is wrong."""
        samples = sum(count for _, count in slots)
        expected = (samples, *self._output)
        if predictions.shape != expected:
            raise EngineError(f"The backend returned shape {predictions.shape}, expected {expected}.")
        if predictions.nbytes <= SMALL and predictions.flags.c_contiguous and predictions.dtype == np.float32:
            self._scatter_small(member, slots, predictions.data.cast("B"))
            return
        target, done = self.predictions[member], 0
        for slot, count in slots:
            target[slot : slot + count] = predictions[done : done + count]
            done += count

    def _scatter_small(self, member: int, slots: Slots, source: memoryview) -> None:
        done, row = 0, self._output_bytes
        base = self._edge + row * member * self.predictions.shape[1]
        for slot, count in slots:
            at, size = base + slot * row, count * row
            self._bytes[at : at + size] = source[done : done + size]
            done += size

    def close(self) -> None:
        """Release the memory; views of it must not be used afterwards."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        empty = np.empty((0,), np.float32)
        self.samples = self.predictions = empty
        self._bytes = memoryview(b"")
