"""Conversion of the benchmark's tasks to ripieno's arguments, and of predictions to the benchmark's format.

The decisions of the adapter: neither the benchmark nor ripieno is needed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

KINDS: Mapping[str, Literal["classification", "regression"]] = {
    "binary": "classification",
    "multiclass": "classification",
    "regression": "regression",
}
"""Kind of ripieno's task, by the benchmark's type of task."""
SEARCH_PARAMETERS = (
    "algorithm",
    "budget",
    "device",
    "epochs",
    "family",
    "folds",
    "free",
    "size",
    "slots",
    "space",
    "split",
    "trials",
    "weights",
)
"""Parameters of a framework definition that ripieno's estimators take under the same names."""
BENCHMARK_PARAMETERS = {"hours": "max_runtime_seconds", "random_state": "seed", "metric": "metric"}
"""Parameters of ripieno's estimators that the benchmark sets, with the names of its own."""
ARTEFACTS = ("leaderboard", "front", "models")
LARGEST = {"parameters": 1e9}
"""Default budget: 4 GB of weights. Parameters are counted, not measured, which leaves the time to the search."""
SPLIT = (0.895, 0.1, 0.005)
"""Default shares of training, validation and test: the benchmark has test rows of its own."""
SAMPLES_OF_A_CLASS = 3
"""Samples that ripieno needs of each class: one for each split."""
OVERRUN = 10.0
"""Seconds by which a fit may overrun its time; ripieno ends trials 5 s after it."""
SHORTEST_FIT = 5.0
"""Seconds of the shortest fit."""
WORKER_MB = 1500
"""Memory of a process that trains, in MB: PyTorch, a network and batches of data."""
MOST_COLUMNS = 5000
"""Number of named columns that ripieno reads; more columns of numbers are passed as an array."""


@dataclass(frozen=True)
class Parameters:
    """Parameters of a framework definition."""

    search: Mapping[str, Any] = field(default_factory=dict)
    """those of ripieno's estimators"""
    images: bool | tuple[int, ...] = False
    """columns as pixels: True for square images, or (height, width[, channels])"""
    artefacts: tuple[str, ...] = ("leaderboard",)


def task_kind(type_: str) -> Literal["classification", "regression"]:
    """Return the kind of ripieno's task. Raises ValueError for a type that it has no answer for."""
    if type_ not in KINDS:
        raise ValueError(f"ripieno takes no task of type {type_!r}: it takes {', '.join(KINDS)}")
    return KINDS[type_]


def read_parameters(given: Mapping[str, Any]) -> Parameters:
    """Read the parameters of a framework definition. Raises ValueError, in one line, for those that do not fit."""
    own = {"_images": False, "_save_artifacts": ["leaderboard"]}
    for name in given:
        if name in BENCHMARK_PARAMETERS:
            raise ValueError(f"parameter {name!r} is set by the benchmark's {BENCHMARK_PARAMETERS[name]}: leave it out")
        if name not in SEARCH_PARAMETERS and name not in own:
            known = ", ".join((*SEARCH_PARAMETERS, *own))
            raise ValueError(f"parameter {name!r} is unknown: it must be one of {known}")
    search = {"budget": LARGEST, "split": SPLIT} | {n: v for n, v in given.items() if n not in own}
    search["split"] = tuple(search["split"]) if isinstance(search["split"], Sequence) else search["split"]
    return Parameters(search, _image_shape(given.get("_images", False)), _artefacts(given.get("_save_artifacts")))


def fit_seconds(limit: float, elapsed: float) -> float:
    """Return the seconds of a fit: those that `limit` leaves. Raises ValueError where that is too little."""
    left = limit - elapsed - OVERRUN
    if left < SHORTEST_FIT:
        raise ValueError(
            f"max_runtime_seconds {limit:g} is too little: the start took {elapsed:.0f} s: give at least "
            f"{math.ceil(elapsed + OVERRUN + SHORTEST_FIT)}"
        )
    return left


def slots_for(cores: int, memory_mb: float) -> int | None:
    """Return the number of trials at a time that `memory_mb` bounds; None where it does not, on `cores` cores.

    This process needs as much memory as one that trains.
    """
    most = max(1, int(memory_mb // WORKER_MB) - 1)
    return most if most < cores else None


def samples_of(frame: Any, images: bool | tuple[int, ...]) -> Any:
    """Return the samples of a frame as ripieno takes them: images, named columns, or numbers where these are many."""
    if images:
        return pixels(frame, images)
    columns = {str(name): _values(frame[name]) for name in frame.columns}
    numbers = all(values.dtype != object for values in columns.values())
    if len(columns) > MOST_COLUMNS and numbers:
        return np.stack(list(columns.values()), axis=1).astype(np.float32)
    return columns


def column_kinds(frame: Any) -> dict[str, str]:
    """Return the columns that are categories by the benchmark, and would be numbers by their values."""
    return {str(name): "category" for name in frame.columns if _looks_like_numbers(frame[name])}


def pixels(frame: Any, shape: bool | tuple[int, ...]) -> NDArray[Any]:
    """Return the columns of a frame as images (samples, height, width, channels), bytes where they hold such.

    With a shape of True the images are square: with one channel, or with a plane of columns for each of three.
    Raises ValueError, in one line, for columns that are no pixels, and where their number does not fit the shape.
    """
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            raise ValueError(f"_images needs pixels, but column {str(name)!r} holds no numbers: leave _images out")
    values = frame.to_numpy(dtype=np.float32, na_value=np.nan)
    if not np.isfinite(values).all():
        raise ValueError("_images needs pixels, but some values are missing or infinite: leave _images out")
    columns = values.shape[1]
    if shape is True:
        side, channels = _square(columns)
        values = values.reshape(-1, channels, side, side).transpose(0, 2, 3, 1)
    else:
        wanted = tuple(shape) if len(shape) == 3 else (*shape, 1)  # type: ignore[arg-type]
        if math.prod(wanted) != columns:
            raise ValueError(f"_images is {list(wanted)}, {math.prod(wanted)} values, but there are {columns} columns")
        values = values.reshape(-1, *wanted)
    is_bytes = values.size and values.min() >= 0 and values.max() <= 255 and (values == np.round(values)).all()
    return values.astype(np.uint8) if is_bytes else values


def rows_of_rare_classes(codes: NDArray[np.int64], least: int = SAMPLES_OF_A_CLASS) -> NDArray[np.int64]:
    """Return rows to repeat, so that each class of `codes` has at least `least` samples."""
    repeated = []
    for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
        own = np.flatnonzero(codes == code)
        repeated += [own[i % count] for i in range(max(0, least - count))]
    return np.asarray(repeated, np.int64)


def class_probabilities(predicted: Any, seen: Sequence[int], classes: int) -> NDArray[np.float64]:
    """Return probabilities (samples, classes): those of the classes `seen` in training, in their order; 0 of others."""
    probabilities = np.zeros((len(predicted), classes))
    probabilities[:, list(seen)] = predicted
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def _image_shape(given: Any) -> bool | tuple[int, ...]:
    if isinstance(given, bool):
        return given
    if isinstance(given, Sequence) and len(given) in (2, 3) and all(isinstance(n, int) and n > 0 for n in given):
        return tuple(given)
    raise ValueError(f"_images is {given!r}: it must be true, [height, width] or [height, width, channels]")


def _artefacts(given: Any) -> tuple[str, ...]:
    names = ["leaderboard"] if given is None else given
    if isinstance(names, str):
        names = [names]
    for name in names:
        if name not in ARTEFACTS:
            raise ValueError(f"_save_artifacts names {name!r}: it must be {', '.join(ARTEFACTS)}")
    return tuple(names)


def _square(columns: int) -> tuple[int, int]:
    for channels in (1, 3):
        side = math.isqrt(columns // channels)
        if channels * side * side == columns:
            return side, channels
    raise ValueError(f"_images is true, but {columns} columns are no square images: give [height, width, channels]")


def _values(column: Any) -> NDArray[Any]:
    """Return the values of a column: numbers as floats, times as they are, all other values as text or None."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column.to_numpy()
    texts = [None if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]
    return np.array(texts, dtype=object)


def _looks_like_numbers(column: Any) -> bool:
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return False
    numbers = pd.to_numeric(pd.Series([str(c) for c in column.cat.categories]), errors="coerce")
    return bool(len(numbers) and numbers.notna().all())
