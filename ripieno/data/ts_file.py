"""The `.ts` format of the archives of series classification and regression.

A header of lines with `@`, then a line for each sample after `@data`. Its channels stand between colons, its values
between commas, and the last part is the target: a class (`@classLabel true A B`), or a number (`@targetLabel true`).
`?` and NaN are missing values; series need not have one length. Samples with time stamps are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripieno.data.series import pad
from ripieno.data.series_file import SeriesFile, text_task
from ripieno.data.text_lines import text_lines
from ripieno.data.walk import shown
from ripieno.errors import DataError

COMMENTS = ("#", "%")
MISSING = "?"
YES = "true"


def read_ts(path: Path) -> SeriesFile:
    """Read a `.ts` file, line by line. Raises DataError naming the line that cannot be read."""
    lines = text_lines(path, COMMENTS)
    header = _header(path, lines)
    classes = header.get("classlabel", "false").split()
    is_class, is_number = classes[:1] == [YES], header.get("targetlabel", "").lower() == YES
    if header.get("timestamps") == YES:
        raise DataError(f"{shown(path)} has time stamps; expected values at equal intervals; resample it without them")
    hint = "" if is_class or is_number else " (a class? the header says @classLabel false)"
    series: list[NDArray[np.float32]] = []
    targets: list[str] = []
    channels = 0
    for number, line in lines:
        where = f"{shown(path)} line {number}"
        parts = line.split(":")
        if is_class or is_number:
            targets.append(parts.pop().strip())
        channels = channels or len(parts)
        if len(parts) != channels or not channels:
            held = f"{where} has {len(parts)} channels"
            raise DataError(f"{held}; expected {channels or 1}, as in the first sample, and the target after them")
        series.append(_series(parts, where, hint))
    if not series:
        raise DataError(f"{shown(path)} has no samples after @data; expected a line for each")
    if not targets:
        return SeriesFile(pad(series), None)
    if is_class:
        names = tuple(name for name in _declared(header) if name)
        return SeriesFile(pad(series), np.array(targets), names, text_task(targets, names))
    return SeriesFile(pad(series), np.array(targets), task="regression")


def _header(path: Path, lines: Iterator[tuple[int, str]]) -> dict[str, str]:
    """Read up to `@data`; return the values by lower-case names, without the `@`."""
    found: dict[str, str] = {}
    problem = "there is no @data"
    for number, line in lines:
        if not line.startswith("@"):
            problem = f"line {number} comes before @data"
            break
        name, _, value = line[1:].strip().partition(" ")
        if name.lower() == "data":
            return found
        # classes keep their spelling
        found[name.lower()] = _with_flag(value.strip())
    raise DataError(f"{shown(path)} is no .ts file: {problem}; expected lines of @ first, such as @classLabel")


def _with_flag(value: str) -> str:
    """Return a value whose first word, true or false, is in lower case."""
    first, blank, rest = value.partition(" ")
    return first.lower() + blank + rest if first.lower() in ("true", "false") else value


def _declared(header: dict[str, str]) -> list[str]:
    return header["classlabel"].split()[1:]


def _series(parts: list[str], where: str, hint: str) -> NDArray[np.float32]:
    """Return the channels of a sample as (points, channels); `hint` explains a channel that is one word."""
    values = [_values(part, where, hint) for part in parts]
    counts = sorted({len(one) for one in values})
    if len(counts) > 1:
        held = f"{where} has channels of {counts[0]} and {counts[-1]} values"
        raise DataError(f"{held}; expected one length in a sample; write ? for values that are missing")
    return np.stack(values, axis=1)


def _values(text: str, where: str, hint: str) -> NDArray[np.float32]:
    words = text.split(",")
    try:
        with np.errstate(over="ignore"):
            return np.array(["nan" if word.strip() == MISSING else word for word in words], np.float64).astype(
                np.float32
            )
    except ValueError as error:
        wrong = next((word for word in words if not _is_value(word)), text)
        held = f"{where} holds {wrong.strip()[:40]!r}{hint if len(words) == 1 else ''}"
        raise DataError(f"{held}; expected numbers between commas") from error


def _is_value(word: str) -> bool:
    try:
        float("nan" if word.strip() == MISSING else word)
    except ValueError:
        return False
    return True
