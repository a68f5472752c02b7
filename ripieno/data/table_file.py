"""Columns of table files: CSV and Parquet, with their values as they stand in the file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ripieno.errors import RipienoError, error_summary, require
from ripieno.tasks.labels import check_names

TABLES = (".csv", ".parquet")
"""Suffixes of table files."""
SEPARATORS = ",;\t|"
"""Signs between the columns of a CSV file, the first preferred."""
DECIMAL_COMMA = ";\t"
"""Signs that leave the comma free as the decimal point."""


class FileColumns(NamedTuple):
    """Named columns of equal length: text of a CSV file, values of a Parquet file; None: no value."""

    columns: dict[str, list[Any]]
    decimal_comma: bool = False
    """whether a comma is the decimal point, as in a CSV file with semicolons between columns"""


def read_columns(path: Path, error: type[RipienoError]) -> FileColumns:
    """Read a .csv or .parquet file with column names. Raises `error` naming the file and the row."""
    return _read_parquet(path, error) if path.suffix.lower() == ".parquet" else _read_csv(path, error)


def is_number(text: str) -> bool:
    """Return whether `text` spells a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def column_names(path: Path, error: type[RipienoError]) -> list[str]:
    """Read the column names of a .csv or .parquet file, and nothing else of it. Raises `error` naming the file."""
    if path.suffix.lower() == ".parquet":
        with _parquet_errors(path, error):
            names: list[str] = require("pyarrow.parquet").read_schema(path).names
            return names
    with _csv_errors(path, error), open(path, newline="", encoding="utf-8-sig") as stream:
        return [name.strip() for name in next(_csv_lines(stream, _separator(stream)), [])]


def _read_csv(path: Path, error: type[RipienoError]) -> FileColumns:
    with _csv_errors(path, error), open(path, newline="", encoding="utf-8-sig") as stream:
        mark = _separator(stream)
        lines = list(_csv_lines(stream, mark))
    if len(lines) < 2:
        raise error(f"{path} has no rows; expected a line of column names and at least one more")
    header = [name.strip() for name in lines[0]]
    if all(is_number(name) for name in header) and not all(name.lstrip("+-").isdecimal() for name in header):
        few = ", ".join(header[:4])
        raise error(f"{path} begins with the numbers {few}; its first row must be column names")
    check_names(header, f"columns of {path}", error)
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise error(f"{path} row {number} has {len(line)} values, but the first row has {len(header)}")
    columns = zip(*lines[1:], strict=True)
    read = {name: [*map(str.strip, values)] for name, values in zip(header, columns, strict=True)}
    return FileColumns(read, mark in DECIMAL_COMMA)


def _separator(stream: TextIO) -> str:
    """Return the separator that gives the first line the most columns, and go back to the start."""
    first = stream.readline()
    stream.seek(0)
    return max(SEPARATORS, key=lambda sign: len(next(csv.reader([first], delimiter=sign), [])))


def _csv_lines(stream: TextIO, mark: str) -> Iterator[list[str]]:
    """Yield the rows that are not empty."""
    return (line for line in csv.reader(stream, delimiter=mark) if line)


@contextmanager
def _csv_errors(path: Path, error: type[RipienoError]) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as fault:
        raise error(f"{path} is no text in UTF-8 ({fault.reason} at byte {fault.start}); save it as UTF-8") from fault
    except (OSError, csv.Error) as fault:
        raise error(f"{path} is not readable as CSV: {fault}") from fault


def _read_parquet(path: Path, error: type[RipienoError]) -> FileColumns:
    with _parquet_errors(path, error):
        table = require("pyarrow.parquet").read_table(path)
    if not table.num_rows or not table.num_columns:
        raise error(f"{path} has no rows")
    check_names(table.column_names, f"columns of {path}", error)
    return FileColumns({name: table.column(name).to_pylist() for name in table.column_names})


@contextmanager
def _parquet_errors(path: Path, error: type[RipienoError]) -> Iterator[None]:
    try:
        yield
    except RipienoError:
        raise
    except Exception as fault:  # pyarrow's errors have no narrower base class
        raise error(f"{path} is not readable as Parquet: {error_summary(fault)}") from fault
