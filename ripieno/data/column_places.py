"""Places of the columns of a table among the values of a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ripieno.types import Column


def column_places(columns: Sequence[Column]) -> Iterator[tuple[Column, slice]]:
    """Yield each column with the place of its values in a sample."""
    start = 0
    for column in columns:
        yield column, slice(start, start + column.width)
        start += column.width
