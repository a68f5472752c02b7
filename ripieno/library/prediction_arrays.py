"""Arrays for predictions of a data set's samples: in memory, or of pixels in a file without a name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.files import scratch_array
from ripieno.tasks.registry import kind_of
from ripieno.types import Dataset


def gather_predictions(dataset: Dataset, samples: int, parts: Iterable[NDArray[Any]]) -> NDArray[np.floating[Any]]:
    """Put the predictions of consecutive `parts` of some `samples` into one array, that of `empty_predictions`."""
    predictions, start = empty_predictions(dataset, samples), 0
    for part in parts:
        predictions[start : start + len(part)] = part
        start += len(part)
    return predictions


def empty_predictions(dataset: Dataset, samples: int) -> NDArray[np.floating[Any]]:
    """Return an array for predictions (samples, *output): float32, or float16 in a file where they are of pixels.

    The file has no name, is in the folder of the data set's folder, and is removed with the array.
    """
    kind = kind_of(dataset.task)
    shape = (samples, *kind.kept_shape(dataset.task))
    if not kind.is_pixelwise:
        return np.empty(shape, np.float32)
    folder = Path(tempfile.gettempdir()) if dataset.path is None else dataset.path.parent
    return scratch_array(folder, shape, np.float16)
