"""Named columns of a table as the tensors of a request, for clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.column_values import DATE_EXAMPLE, ColumnValues, category_text, parse_dates, parse_numbers
from ripieno.errors import RipienoError
from ripieno.tasks.labels import shown

SENT_NUMBERS = {"FP32": "<f4", "FP64": "<f8"}
"""NumPy's types by the datatypes of the numbers that are sent; text is `BYTES`."""


def to_tensors(
    columns: Mapping[str, ColumnValues], declared: Mapping[str, str], model: str
) -> dict[str, NDArray[Any] | list[str]]:
    """Return `columns` as values of the datatypes `declared` by their names: text, or little-endian numbers.

    Dates become days since 1970-01-01 where numbers are declared. Columns that `model` does not have are left out, as
    when a file is predicted. Raises RipienoError for a missing column, no rows, values of another kind, and a declared
    datatype that is none of these.
    """
    if absent := next((name for name in declared if name not in columns), None):
        raise RipienoError(f"the data have no column {absent!r}; {model} has the inputs {shown(list(declared))}")
    for name, datatype in declared.items():
        if datatype != "BYTES" and datatype not in SENT_NUMBERS:
            expected = ", ".join(("BYTES", *SENT_NUMBERS))
            raise RipienoError(f"{model} takes {name!r} as {datatype}; columns are sent as one of {expected}")
    if not len(next(iter(columns.values()))):
        raise RipienoError("the data have no rows; pass at least one")
    return {name: _to_tensor(columns[name], name, datatype) for name, datatype in declared.items()}


def _to_tensor(given: ColumnValues, name: str, datatype: str) -> NDArray[Any] | list[str]:
    if datatype == "BYTES":
        return [category_text(value) or "" for value in given]
    if datatype == "FP64" and not (isinstance(given, np.ndarray) and given.dtype.kind in "biuf"):
        numbers, wrong = parse_dates(given)
        expected = DATE_EXAMPLE
    else:
        numbers, wrong = parse_numbers(given)
        expected = "a number"
    if wrong is not None:
        raise RipienoError(f"row {wrong} of column {name!r} holds {str(given[wrong])[:40]!r}; expected {expected}")
    with np.errstate(over="ignore"):  # the server refuses what becomes infinite
        return numbers.astype(SENT_NUMBERS[datatype])
