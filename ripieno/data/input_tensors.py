"""Tensors of a model's inputs, as exported graphs and servers take them: one for each column of a table, else one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ripieno.types import ColumnKind, Input

IMAGES = "images"
"""Name of the tensor of all inputs without named columns, and of the matrix of a table."""
COLUMN_DTYPES: Mapping[ColumnKind, str] = {"number": "float32", "category": "str", "date": "float64"}
"""Types of the tensors of columns. Dates are days since 1970-01-01: single precision would lose their hours."""


class InputTensor(NamedTuple):
    """Name, type and shape of one tensor."""

    name: str
    dtype: str
    """as in NumPy; `str` is text in UTF-8"""
    shape: tuple[int, ...]
    """without the batch axis"""


def input_tensors(input: Input) -> tuple[InputTensor, ...]:
    """Return the tensors of one sample of `input`: the columns (1,) of a table by their names, else `images`."""
    if not input.columns:
        return (InputTensor(IMAGES, input.dtype, input.shape),)
    return tuple(InputTensor(column.name, COLUMN_DTYPES[column.kind], (1,)) for column in input.columns)
