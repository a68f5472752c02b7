"""Targets of a source as they were read, before they have the form of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import DataError


@dataclass(frozen=True, eq=False)
class RawTargets:
    """Targets of one part of a source: an array (samples,) or (samples, columns), see `as_array`."""

    values: NDArray[Any]
    where: str
    """names the part in messages"""
    rows: Sequence[str] = ()
    """names of the samples in messages; empty: their numbers"""

    def row(self, index: int) -> str:
        """Return the name of a sample in messages."""
        return self.rows[index] if self.rows else f"sample {index}"


def as_array(targets: Any, where: str) -> NDArray[Any]:
    """Return targets as an array; lists of labels become objects (samples,). Raises DataError for ragged numbers."""
    if isinstance(targets, np.ndarray) and targets.dtype != object:
        return targets
    values = list(targets) if isinstance(targets, list | tuple) else None
    if values and all(isinstance(v, list | tuple | set | frozenset) for v in values):
        if len({len(v) for v in values}) == 1 and all(isinstance(n, int | float) for v in values for n in v):
            rows = np.array([list(v) for v in values])
            # a list of indices of labels has any length, and would not be all 0 and 1
            if rows.dtype.kind == "f" or rows.shape[1] == 1 or np.isin(rows, (0, 1)).all():
                return rows
        objects = np.empty(len(values), object)
        objects[:] = [tuple(v) for v in values]
        return objects
    try:
        array = np.asarray(targets)
    except ValueError as error:
        raise DataError(f"targets of {where} are no array: {error}") from error
    if array.dtype == object and array.ndim == 1 and all(type(v) in (int, float) for v in array.tolist()):
        return array.astype(np.float64)
    return array


def squeezed(values: NDArray[Any]) -> NDArray[Any]:
    """Return a single column (samples, 1) as (samples,)."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def holds_sequences(values: NDArray[Any]) -> bool:
    """Return whether the values are sequences of labels."""
    return values.dtype == object and values.ndim == 1 and any(isinstance(v, list | tuple | set) for v in values)
