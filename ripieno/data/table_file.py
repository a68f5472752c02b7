"""Columns of table files: CSV and Parquet, with their values as they stand in the file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

from ripieno.errors import RipienoError, error_summary, require
from ripieno.tasks.labels import check_names

TABLES = (".csv", ".parquet")
"""Suffixes of table files."""


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


def _read_csv(path: Path, error: type[RipienoError]) -> FileColumns:
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            # a comma, a semicolon, a tab or a bar, whichever gives the most columns
            mark = max(",;\t|", key=lambda sign: len(next(csv.reader([first], delimiter=sign), [])))
            stream.seek(0)
            lines = [line for line in csv.reader(stream, delimiter=mark) if line]
    except UnicodeDecodeError as fault:
        raise error(f"{path} is no text in UTF-8 ({fault.reason} at byte {fault.start}); save it as UTF-8") from fault
    except (OSError, csv.Error) as fault:
        raise error(f"{path} is not readable as CSV: {fault}") from fault
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
    return FileColumns(
        {name: [line[i].strip() for line in lines[1:]] for i, name in enumerate(header)}, mark not in ",|"
    )


def _read_parquet(path: Path, error: type[RipienoError]) -> FileColumns:
    parquet = require("pyarrow.parquet")
    try:
        table = parquet.read_table(path)
    except Exception as fault:  # pyarrow's errors have no narrower base class
        raise error(f"{path} is not readable as Parquet: {error_summary(fault)}") from fault
    if not table.num_rows or not table.num_columns:
        raise error(f"{path} has no rows")
    check_names(table.column_names, f"columns of {path}", error)
    return FileColumns({name: table.column(name).to_pylist() for name in table.column_names})
