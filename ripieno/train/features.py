"""Features of a data set's samples by a frozen backbone, computed once for all trials of a run.

RUN/features/BACKBONE.npy holds them, float32 (samples, features), by the rows of the data set. The first process that
needs them computes them under a lock, while others wait; the lock of a process that died is free. The file is complete
or absent. Rows of the test split are not a number: nothing is trained or judged on them, and a split of many test
samples would take most of the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.types import Dataset, Float32s, ProgressFunction

BATCH = 64
"""Samples in a batch."""
WAIT = 0.5
"""Seconds between two looks whether another process has done."""
_log = logging.getLogger(__name__)


def cached_features(
    path: Path,
    dataset: Dataset,
    width: int,
    compute: Callable[[NDArray[Any]], Float32s],
    progress: ProgressFunction | None = None,
) -> Float32s:
    """Return the features (samples, width) in the file `path`, memory-mapped; make it when it is absent or broken.

    `compute` turns inputs (batch, *shape) into features (batch, width). `progress` gets the samples done, by default
    the log does. Raises RipienoError when the file cannot be written.
    """
    expected = len(dataset.inputs), width
    if (found := _read(path, expected)) is not None:
        return found
    with files.locked(path.with_suffix(".lock"), "another trial", wait=WAIT):
        if (found := _read(path, expected)) is None:
            _make(path, dataset, width, compute, progress or _report)
            found = _read(path, expected)
    if found is None:
        raise LibraryError(f"{path} cannot be read although it was just written; check the disk")
    return found


def _read(path: Path, shape: tuple[int, int]) -> Float32s | None:
    """Return the features, or None where there are none of this shape."""
    try:
        found = files.read_array(path)
    except LibraryError:
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


def _make(
    path: Path,
    dataset: Dataset,
    width: int,
    compute: Callable[[NDArray[Any]], Float32s],
    progress: ProgressFunction,
) -> None:
    rows = np.union1d(dataset.rows("train"), dataset.rows("valid"))
    step, start = f"computing features {path.stem}", 0
    with files.array_writer(path, (width,), np.float32) as append:
        for first in range(0, len(rows), BATCH):
            chosen = rows[first : first + BATCH]
            stop = int(chosen[-1]) + 1
            block = np.full((stop - start, width), np.nan, np.float32)
            block[chosen - start] = compute(np.asarray(dataset.inputs[chosen]))
            append(block)
            start = stop
            progress(step, min(first + BATCH, len(rows)), len(rows))
        append(np.full((len(dataset.inputs) - start, width), np.nan, np.float32))


def _report(step: str, done: int, total: int) -> None:
    _log.info("%s: %d of %d", step, done, total)
