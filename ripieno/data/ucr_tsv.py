"""The `.tsv` format of the UCR archive: a line for each series, its class and then its values, between tabs.

NaN at the end pads shorter series, NaN within is a missing value. The class may be a name or a number; numbers with
fractions are read as targets of a regression.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripieno.data.series import pad
from ripieno.data.series_file import SeriesFile, text_task
from ripieno.data.text_lines import text_lines
from ripieno.data.walk import shown
from ripieno.errors import DataError


def read_ucr_tsv(path: Path) -> SeriesFile:
    """Read a `.tsv` file, line by line. Raises DataError naming the line that cannot be read."""
    series: list[NDArray[np.float32]] = []
    targets: list[str] = []
    for number, line in text_lines(path):
        target, *words = line.split("\t")
        if not words:
            held = f"{shown(path)} line {number} has no tab"
            raise DataError(f"{held}; expected the class, a tab, and values between tabs")
        try:
            with np.errstate(over="ignore"):
                values = np.array(words, np.float64).astype(np.float32)
        except ValueError as error:
            wrong = error.args[0].rpartition(": ")[2]
            raise DataError(f"{shown(path)} line {number} holds {wrong[:40]}; expected numbers between tabs") from error
        series.append(values[:, np.newaxis])
        targets.append(target.strip())
    if not series:
        raise DataError(f"{shown(path)} has no lines; expected one for each series: its class and its values")
    return SeriesFile(pad(series), *_targets(targets))


def _targets(texts: list[str]) -> tuple[NDArray[np.generic], tuple[str, ...], str]:
    """Return targets, as numbers where all are; with names of none, and the kind of task."""
    try:
        numbers = np.array(texts, np.float64)
    except ValueError:
        return np.array(texts), (), text_task(texts, ())
    if np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all():
        return numbers.astype(np.int64), (), "classification"
    return numbers, (), "regression"
