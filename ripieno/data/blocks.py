"""Blocks of large arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 22
"""Approximate bytes of a block in which whole arrays are scanned, so that a mapped array is never in memory at once."""


def blocks(array: NDArray[Any], length: int | None = None) -> list[slice]:
    """Return the blocks of an array, or of a selection of `length` of its rows: of about `BLOCK_BYTES` each."""
    rows = max(1, BLOCK_BYTES // max(1, array.nbytes // max(1, len(array))))
    return [slice(start, start + rows) for start in range(0, len(array) if length is None else length, rows)]


def select_rows(array: NDArray[Any], rows: NDArray[Any]) -> Any:
    """Return the chosen `rows`, indices or booleans, of an array; those of masks, which are large, as a `RowView`."""
    if array.ndim < 3:
        return np.asarray(array[rows])
    return RowView(array, np.flatnonzero(rows) if rows.dtype == np.bool_ else rows)


class RowView(Sequence[NDArray[Any]]):
    """Some rows of an array, read one at a time, so that those of a mapped array are never in memory together."""

    def __init__(self, array: NDArray[Any], rows: NDArray[np.int64]) -> None:
        self.array, self.rows = array, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> RowView: ...
    def __getitem__(self, index: int | slice) -> NDArray[Any] | RowView:
        if isinstance(index, slice):
            return RowView(self.array, self.rows[index])
        return np.asarray(self.array[self.rows[index]])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (np.asarray(self.array[row]) for row in self.rows)
