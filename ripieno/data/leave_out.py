"""Lists of samples that are left out of training and validation, such as those of `ripieno suspects`.

    file,given            row,given
    a/1.png,cat           17,cat

A list is a `.csv` or `.parquet` file with a column of files, or `row`, the place of a sample in the data set from 0 on.
With a column `given`, the target of each sample must still be what it says. Other columns are ignored. Samples of the
test split are kept, so that figures of two runs are about the same samples; they are noted as doubted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.image_table import FILE_COLUMNS
from ripieno.data.table_columns import GAPS
from ripieno.data.table_file import read_columns
from ripieno.data.walk import shown
from ripieno.errors import DataError
from ripieno.tasks.target_text import target_text
from ripieno.types import NO_SPLIT, SPLITS, Ints, Task

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a text that a spreadsheet takes for a formula; lists have an apostrophe before them."""


@dataclass(frozen=True)
class LeaveOut:
    """Samples that are left out, each by its file or its row, and the target that it had."""

    name: str
    """of the list's file"""
    files: tuple[str, ...]
    """empty: the list has none"""
    rows: tuple[int, ...]
    """empty: the list has none"""
    given: tuple[str, ...]
    """targets, as of `target_text`; empty: the list has none"""

    def __str__(self) -> str:
        named = self.files or tuple(map(str, self.rows))
        digest = hashlib.blake2b("\n".join(named).encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
        return f"{self.name} ({len(named):,} samples, {digest})"

    def applied(
        self,
        split: NDArray[np.uint8],
        files: NDArray[np.bytes_] | None,
        targets: NDArray[Any],
        task: Task,
        notes: list[str],
    ) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        """Return `split` (samples,) without the samples listed, and the rows of those that the test split keeps.

        Samples have names where `files` (samples,) are given. A note counts what is left out. Raises DataError for
        samples that are not there or have another target, and where no training or validation sample is left.
        """
        rows = self._rows(files, len(split))
        if self.given:
            for row, given in zip(rows, self.given, strict=True):
                if (own := target_text(targets[row], task)) != given:
                    sample = file_text(files[row]) if files is not None else f"row {row}"
                    advice = "take it off the list if it was corrected; a list of other data does not fit"
                    raise DataError(f"{self.name} lists {sample} as {given!r}, but the data say {own!r}; {advice}")
        chosen = np.unique(rows)
        counts = [int((split[chosen] == number).sum()) for number in range(len(SPLITS))]
        line = f"{counts[0]:,} training and {counts[1]:,} validation samples are left out, as {self.name} lists them"
        kept = f"; {counts[2]:,} of the test split are kept, and figures are given with and without them"
        notes.append(line + (kept if counts[2] else ""))
        is_test = split[chosen] == SPLITS.index("test")
        left = split.copy()
        left[chosen[~is_test]] = NO_SPLIT
        for number, name, use in ((0, "training", "train on"), (1, "validation", "validate on")):
            if counts[number] and not (left == number).any():
                raise DataError(f"{self.name} lists all {name} samples; a list must leave some to {use}")
        return left, tuple(chosen[is_test].tolist())

    def _rows(self, files: NDArray[np.bytes_] | None, samples: int) -> Ints:
        """Return the row of each sample listed. Raises DataError for those that are not there."""
        if files is not None and self.files:
            place = {file_text(name): row for row, name in enumerate(files)}
            missing = [name for name in self.files if name not in place]
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise DataError(f"{self.name} lists {missing[0]!r}{more}, which the data do not have; correct the list")
            return np.array([place[name] for name in self.files])
        if not self.rows:
            raise DataError(f"{self.name} lists files, but the data are no files; it must have a column row")
        beyond = [row for row in self.rows if not 0 <= row < samples]
        if beyond:
            raise DataError(f"{self.name} lists row {beyond[0]}, but the data have rows 0 to {samples - 1}")
        return np.array(self.rows)


def read_leave_out(path: str | Path) -> LeaveOut:
    """Read a list of samples. Raises DataError, in one line, for a file that is none."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{shown(path)} does not exist; pass a list of samples, such as that of `ripieno suspects`")
    columns = {name.lower(): values for name, values in read_columns(path, DataError).columns.items()}
    files = next((columns[name] for name in FILE_COLUMNS if name in columns), [])
    if not files and "row" not in columns:
        raise DataError(f"{shown(path)} has the columns {', '.join(columns)}; expected file or row")
    named = tuple(_without_apostrophe(str(name)) for name in files)
    if any(name in GAPS for name in named):
        named = ()  # a list of samples that are no files has an empty column
    given = tuple(_without_apostrophe(str(value)) for value in columns.get("given", ()))
    return LeaveOut(path.name, named, _row_numbers(columns.get("row", []), path), given)


def file_text(name: bytes) -> str:
    """Return the name of a file in `Dataset.files` as text."""
    return name.decode("utf-8", "backslashreplace")


def _row_numbers(values: Sequence[Any], path: Path) -> tuple[int, ...]:
    wrong = next((value for value in values if not str(value).isdecimal()), None)
    if wrong is not None:
        raise DataError(f"{shown(path)} has {wrong!r} in the column row; expected whole numbers from 0 on")
    return tuple(map(int, values))


def _without_apostrophe(text: str) -> str:
    return text[1:] if text[:1] == "'" and text[1:2] in FORMULAS else text
