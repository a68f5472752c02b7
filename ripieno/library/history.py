"""History: a folder of small records of past searches, one file a search, that another search can learn from.

HISTORY/NAME.jsonl   a line on the search, then one for each trial: the values of its ranges and its results by epoch

A record holds nothing of the data itself, only its kind, task, numbers of samples, shape and number of classes. The
name ends in the first digits of the search's identity, which is drawn when the search begins: the folders of two
machines merge by copying, and a search that is added again replaces its record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ripieno import files
from ripieno.errors import LibraryError, error_summary
from ripieno.library.broken import read_sound
from ripieno.library.library import plain_name
from ripieno.shell_command import command
from ripieno.types import Configuration

T = TypeVar("T")
VERSION = 1
"""Version of the records that are written; readers take older ones."""
SUFFIX = ".jsonl"
DIGITS = 8
"""Digits of the identity in the name of a record."""


@dataclass(frozen=True)
class DataSummary:
    """Form of a data set, and the number of its samples."""

    kind: str
    task: str
    samples: Mapping[str, int]
    """number by split"""
    shape: tuple[int, ...]
    """of one sample"""
    classes: int = 0
    """number of classes, labels or target columns"""


@dataclass(frozen=True)
class TrialRecord:
    """Trial of a record: values of the ranges, and (epoch, loss or None where it failed, seconds) of each result."""

    values: Configuration
    results: tuple[tuple[int, float | None, float], ...]


@dataclass(frozen=True)
class SearchRecord:
    """Record of a search; `space` is as `space_to_plain` returns it."""

    name: str
    identity: str
    space: Mapping[str, Any]
    algorithm: str
    metric: str
    """loss by which trials rank"""
    unit: str
    """of what is counted as an epoch"""
    epochs: int
    data: DataSummary | None
    trials: tuple[TrialRecord, ...] = ()


def record_name(run: str, identity: str) -> str:
    """Return the name of the record of a search in a folder called `run`."""
    return f"{run.lstrip('.') or 'run'}-{identity[:DIGITS]}"


def read_record(path: Path) -> SearchRecord:
    """Read the record in a file. Raises LibraryError if it is absent, broken, or of a newer version."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist") from error
    except OSError as error:
        raise LibraryError(f"{path} cannot be read: {error.strerror}") from error
    try:
        head = msgspec.json.decode(lines[0]) if lines else None
        version = head.pop("version", None) if isinstance(head, dict) else None
        if not isinstance(head, dict) or not isinstance(version, int):
            raise LibraryError(f"{path} is no record of a search: make one with `{command('history', 'add', 'RUN')}`")
        if version > VERSION:
            raise LibraryError(f"{path} has version {version}, above {VERSION}, the latest known: upgrade ripieno")
        trials = [msgspec.json.decode(line) for line in lines[1:]]
        return files.convert({**head, "name": path.stem, "trials": trials}, SearchRecord)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise LibraryError(f"{path} cannot be read: {error_summary(error)}; remove it, or copy it again") from error


class History:
    """The folder of records at `path`, which need not exist yet."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def names(self) -> list[str]:
        """Return the names of the records, in order."""
        return sorted(path.stem for path in self.path.glob(f"*{SUFFIX}") if not path.name.startswith("."))

    def record_path(self, name: str) -> Path:
        """File of the record called `name`, present or not."""
        return self.path / f"{plain_name(name)}{SUFFIX}"

    def records(self) -> list[SearchRecord]:
        """Return all records by name; a warning names those that cannot be read."""
        return self.read(lambda record: record)

    def read(self, convert: Callable[[SearchRecord], T]) -> list[T]:
        """Return what `convert` makes of each record, by name; a warning names those that raise LibraryError."""
        paths = [self.record_path(name) for name in self.names()]
        return list(read_sound(f"the records of {self.path}", paths, lambda p: convert(read_record(p))).values())

    def add(self, record: SearchRecord) -> Path:
        """Write a record in place of earlier ones of its search, whatever their names; return its file."""
        path = self.record_path(record.name)
        head = {"version": VERSION, **msgspec.to_builtins(record)}
        lines = [head, *head.pop("trials")]
        del head["name"]  # the file's
        files.write_bytes(path, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        for name in self.names():
            if name != record.name and name.endswith(f"-{record.identity[:DIGITS]}"):
                files.remove_file(self.record_path(name))
        return path

    def remove(self, name: str) -> None:
        """Remove the record called `name`, also a broken one. Raises LibraryError that lists the others."""
        if not self.record_path(name).exists():
            known = ", ".join(self.names()) or "none"
            raise LibraryError(f"{self.path} has no record {name!r}; there are: {known}")
        files.remove_file(self.record_path(name))
