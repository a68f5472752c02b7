"""Tables in memory: data frames, mappings of column names to values, and rows that are such mappings.

The libraries of data frames are not imported: a data frame is recognised by the names of its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ripieno.data.column_values import ColumnValues
from ripieno.errors import DataError, RipienoError
from ripieno.tasks.labels import check_names


def is_data_frame(source: Any) -> bool:
    """Return whether `source` is a data frame, a mapping of names to values of one axis, or a list of rows."""
    if isinstance(source, Mapping):
        names = list(source)  # a sparse matrix may be a mapping, too
        return bool(names) and all(isinstance(name, str) and _is_column(source[name]) for name in names)
    if isinstance(source, list):
        return bool(source) and all(isinstance(row, Mapping) for row in source) and _is_row(source[0])
    # data sets of Hugging Face have columns and features
    return hasattr(source, "__getitem__") and hasattr(source, "columns") and not hasattr(source, "features")


def data_frame_columns(source: Any, where: str) -> dict[str, ColumnValues]:
    """Return the columns of a source for which `is_data_frame` holds, by name, each of one axis and as long.

    Raises DataError for no columns, duplicate names, and for rows or columns that do not agree.
    """
    if isinstance(source, list):
        source = columns_of_rows(source, where, DataError)
    given = source if isinstance(source, Mapping) else getattr(source, "column_names", None) or source.columns
    names = [str(name) for name in given]
    if not names:
        raise DataError(f"{where} has no columns; expected one for each input")
    check_names(names, f"columns of {where}", DataError)
    columns: dict[str, ColumnValues] = {}
    for name, key in zip(names, given, strict=True):
        values = source[key]
        columns[name] = values if isinstance(values, list) else np.asarray(values)
    counts = {name: len(values) for name, values in columns.items()}
    for name, count in counts.items():
        if count != counts[names[0]]:
            unequal = f"{counts[names[0]]:,} values for {names[0]!r}, but {count:,} for {name!r}"
            raise DataError(f"{where} has {unequal}; expected one value in each row")
    return columns


def columns_of_rows(
    rows: Sequence[Mapping[str, Any]], where: str, error: type[RipienoError], first_row: int = 0
) -> dict[str, list[Any]]:
    """Return rows, each a mapping of column names to values, as columns. Raises `error` for rows of unequal names."""
    names = list(rows[0]) if rows else []
    for number, row in enumerate(rows, first_row):
        if row.keys() == rows[0].keys():
            continue
        if absent := [name for name in names if name not in row]:
            raise error(f"{where} row {number} has no {absent[0]!r}; expected a value of each column, or null")
        extra = next(name for name in row if name not in rows[0])
        raise error(f"{where} row {number} has {extra!r}, row {first_row} has not; expected the same columns in all")
    return {name: [row[name] for row in rows] for name in names}


def _is_column(values: Any) -> bool:
    """Return whether values have one axis; a column of a data frame has `__array__`."""
    if isinstance(values, list | tuple):
        return not len(values) or isinstance(values[0], str | bytes) or not np.iterable(values[0])
    return hasattr(values, "__array__") and len(np.shape(values)) == 1


def _is_row(row: Mapping[Any, Any]) -> bool:
    """Return whether a mapping holds one value a name, none of them an array or a picture."""
    plain = all(isinstance(value, str | bytes) or not np.iterable(value) for value in row.values())
    return plain and not any(hasattr(value, "convert") for value in row.values())
