"""Blocks of large arrays."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

BLOCK_BYTES = 1 << 22
"""Approximate bytes of a block in which whole arrays are scanned, so that a mapped array is never in memory at once."""


def blocks(array: NDArray[Any], length: int | None = None) -> list[slice]:
    """Return the blocks of an array, or of a selection of `length` of its rows: of about `BLOCK_BYTES` each."""
    rows = max(1, BLOCK_BYTES // max(1, array.nbytes // max(1, len(array))))
    return [slice(start, start + rows) for start in range(0, len(array) if length is None else length, rows)]
