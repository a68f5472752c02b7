"""Input of arrays from common file formats: .npy, .npz, .csv, .parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.table_file import TABLES, is_number, read_columns
from ripieno.errors import LibraryError

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


class Table(NamedTuple):
    """Named columns of equal length: of numbers where all values are numbers, else of text."""

    columns: dict[str, NDArray[Any]]
    texts: dict[str, list[str]]
    """columns as in the text file: "001" is not 1 where it is a name"""
    row_names: list[str] | None = None
    """labels of the rows, from an unnamed column, as pandas writes them"""

    def names(self, column: str) -> Any:
        """Return a column that may hold names: as text of the file, where that is known."""
        return self.texts.get(column, self.columns[column])


def read_table(path: Path) -> Table:
    """Read a .csv or .parquet file with column names. Raises LibraryError naming the file and the row."""
    _exists(path)
    if path.suffix.lower() not in TABLES:
        raise LibraryError(f"{path} is no table; expected .csv or .parquet")
    found = read_columns(path, LibraryError)
    if path.suffix.lower() == ".parquet":
        return _of_values(path, found.columns)
    index = _pop_index(found.columns, path)
    numbers = {name: _column(values, found.decimal_comma) for name, values in found.columns.items()}
    return Table(numbers, found.columns, index)


def _pop_index(texts: dict[str, Any], path: Path) -> list[str] | None:
    """Remove the columns that only label the rows from `texts`; return the first. Raises LibraryError for no other."""
    indices = [[str(value) for value in texts.pop(n)] for n in list(texts) if _is_index(n, [str(v) for v in texts[n]])]
    if not texts:
        raise LibraryError(f"{path} has no column except an index; expected one per class")
    return indices[0] if indices else None


def _is_index(name: str, values: list[str]) -> bool:
    """Return whether a column labels the rows: it has no name, or is named index and counts from 0."""
    unnamed = not name or name.startswith(("Unnamed:", "__index_level_"))
    return unnamed or (name == "index" and values == [str(row) for row in range(len(values))])


def _column(values: list[str], decimal_comma: bool) -> NDArray[Any]:
    try:
        return np.array([float(value.replace(",", ".") if decimal_comma else value) for value in values])
    except ValueError:
        return np.array(values)


def _of_values(path: Path, values: dict[str, list[Any]]) -> Table:
    """Return the table of a Parquet file's values. Raises LibraryError for a column with gaps or of several types."""
    try:
        columns: dict[str, NDArray[Any]] = {name: np.asarray(column) for name, column in values.items()}
    except ValueError as error:
        raise LibraryError(f"{path} has a column of lists of unequal lengths; expected numbers or names") from error
    missing = [name for name, column in columns.items() if column.dtype.kind == "O"]
    if missing:
        raise LibraryError(f"{path} column {missing[0]!r} has empty rows, or values of several types; fill them")
    index = _pop_index(columns, path)
    return Table(columns, {}, index)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a .npz file by name, or that of a .npy file under its stem."""
    _exists(path)
    if path.suffix.lower() == ".npy":
        return {path.stem: files.read_array(path)}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy raise different types
        raise LibraryError(f"{path} is not a readable .npz file of plain arrays: {error}") from error


def numbers_of(table: Table, path: Path, columns: list[str]) -> NDArray[np.float64]:
    """Return columns (rows, columns) as numbers. Raises LibraryError for other content."""
    for name in columns:
        if table.columns[name].dtype.kind not in "fiub":
            text = next((v for v in table.columns[name] if not is_number(v)), "")
            raise LibraryError(f"{path} column {name!r} holds {str(text)!r}; expected numbers")
    return np.stack([table.columns[name].astype(np.float64) for name in columns], axis=1)


def _exists(path: Path) -> None:
    if not path.is_file():
        raise LibraryError(f"{path} does not exist")
    if path.suffix.lower() not in SUFFIXES:
        raise LibraryError(f"{path} has an unknown format; expected {', '.join(SUFFIXES)}")
