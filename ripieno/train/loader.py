"""A loader process: gathers images from the shared memory map, prepares them, and writes them into shared memory.

Orders come as lines of JSON on standard input, answers leave as lines on standard output. At the end of its input the
process ends: the kernel closes the pipe however the trainer died.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from ripieno.data import open_dataset
from ripieno.data.augment import Augmentation
from ripieno.train.batching import InputTransform


class Order(msgspec.Struct):
    """Prepare the block that lies at `offset` of the shared memory: rows, draws, and room for the images after them."""

    offset: int
    samples: int
    draws: int
    """numbers drawn for a sample; 0: nothing is changed"""
    augment: Augmentation


class Desk:
    """Arrays of a block where they lie in `memory` at `offset`."""

    def __init__(self, memory: mmap.mmap, offset: int, samples: int, draws: int, shape: tuple[int, ...]) -> None:
        first = offset + 8 * samples
        images = offset + _head(samples, draws)
        size = samples * math.prod(shape)
        self.rows: NDArray[np.int64] = np.frombuffer(memory, np.int64, samples, offset)
        self.draws: NDArray[np.float32] = np.frombuffer(memory, np.float32, samples * draws, first)
        self.draws = self.draws.reshape(samples, draws)
        self.images: NDArray[np.float32] = np.frombuffer(memory, np.float32, size, images).reshape(samples, *shape)

    @staticmethod
    def bytes(samples: int, draws: int, shape: tuple[int, ...]) -> int:
        """What a block takes, in whole pages."""
        return -(-(_head(samples, draws) + 4 * samples * math.prod(shape)) // mmap.PAGESIZE) * mmap.PAGESIZE


def _head(samples: int, draws: int) -> int:
    """Bytes before the images, which are aligned as torch's own are: kernels may round by alignment."""
    return -(-(8 * samples + 4 * samples * draws) // 64) * 64


def main() -> None:
    """Serve until the input ends: `loader FOLDER DESCRIPTOR`."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what others print is no answer
    torch.set_num_threads(1)
    serve(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer, answers)


def serve(folder: Path, descriptor: int, orders: IO[bytes], answers: IO[str]) -> None:
    """Prepare images of the data set in `folder` in the memory behind `descriptor`, order by order."""
    dataset = open_dataset(folder)
    shape = dataset.input.shape
    mean, std = torch.tensor(dataset.mean), torch.tensor([s or 1.0 for s in dataset.std])
    memory = None
    answers.write("ready\n")
    for line in orders:
        order = msgspec.json.decode(line, type=Order)
        if memory is None or len(memory) != os.fstat(descriptor).st_size:
            memory = mmap.mmap(descriptor, 0)
        desk = Desk(memory, order.offset, order.samples, order.draws, shape)
        images = torch.from_numpy(dataset.images[desk.rows])
        draws = torch.from_numpy(desk.draws) if order.draws else None
        desk.images[:] = InputTransform(order.augment, mean, std)(images, draws).numpy()
        answers.write("done\n")
