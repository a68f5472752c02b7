"""Arrays from the files people keep them in: .npy, .npz, .csv, .parquet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.errors import LibraryError, first_line, need

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


class Table(NamedTuple):
    """Named columns of one length; of numbers where all of a column are, else of text."""

    columns: dict[str, NDArray[Any]]

    @property
    def rows(self) -> int:
        """Their length."""
        return len(next(iter(self.columns.values())))


def read_table(path: Path) -> Table:
    """A .csv or .parquet file with column names. Raises LibraryError naming the file and the row."""
    _exists(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix != ".csv":
        raise LibraryError(f"{path} is no table: it must end in .csv or .parquet")
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            lines = [line for line in csv.reader(stream) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LibraryError(f"{path} is not readable as CSV: {error}") from error
    if len(lines) < 2:
        raise LibraryError(f"{path} has no rows: it must have a line of column names and at least one more")
    header = [name.strip() for name in lines[0]]
    double = [name for i, name in enumerate(header) if name in header[:i]]
    if double:
        raise LibraryError(f"{path} has two columns named {double[0]!r}: each must have its own name")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise LibraryError(f"{path} row {number} has {len(line)} values, the first row has {len(header)}")
    return Table({name: _column([line[i] for line in lines[1:]]) for i, name in enumerate(header)})


def _column(values: list[str]) -> NDArray[Any]:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return np.array([value.strip() for value in values])


def _read_parquet(path: Path) -> Table:
    parquet = need("pyarrow.parquet")
    try:
        table = parquet.read_table(path)
    except Exception as error:  # pyarrow's errors have no common base but this
        line = first_line(error)
        raise LibraryError(f"{path} is not readable as Parquet: {line}") from error
    if not table.num_rows or not table.num_columns:
        raise LibraryError(f"{path} has no rows")
    columns = {name: np.asarray(table.column(name).to_numpy()) for name in table.column_names}
    return Table({n: c.astype(str) if c.dtype.kind == "O" else c for n, c in columns.items()})


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name, or that of a .npy file under its stem."""
    _exists(path)
    if path.suffix == ".npy":
        return {path.stem: files.read_array(path)}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise LibraryError(f"{path} is not a readable .npz file of plain arrays: {error}") from error


def numbers_of(table: Table, path: Path, columns: list[str]) -> NDArray[np.float64]:
    """Columns (rows, columns) that must be of numbers."""
    for name in columns:
        if table.columns[name].dtype.kind not in "fiub":
            text = next((v for v in table.columns[name] if not _is_number(v)), "")
            raise LibraryError(f"{path} column {name!r} holds {str(text)!r}: it must hold numbers")
    return np.stack([table.columns[name].astype(np.float64) for name in columns], axis=1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _exists(path: Path) -> None:
    if not path.is_file():
        raise LibraryError(f"{path} does not exist")
    if path.suffix not in SUFFIXES:
        raise LibraryError(f"{path} is of a kind unknown here: it must end in {', '.join(SUFFIXES)}")
