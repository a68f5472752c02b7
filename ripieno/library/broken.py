"""Files of a run that cannot be read: left where they lie, named in one warning, and everything else is used.

A disk that was full, a copy that was cut short or a newer version may break one file of thousands. None of them may
stop a command, none is removed, and what is written in the place of one renames it first (`files.set_aside`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ripieno import files
from ripieno.errors import BrokenFileWarning, LibraryError

T = TypeVar("T")
K = TypeVar("K")
NAMED = 3
"""Broken files, at most, that a warning names."""


def read_sound(what: str, keys: Iterable[K], read: Callable[[K], T]) -> dict[K, T]:
    """What `read` gives for each of `keys`; those it raises LibraryError for are named in one warning about `what`."""
    found: dict[K, T] = {}
    reasons: list[str] = []
    for key in keys:
        try:
            found[key] = read(key)
        except LibraryError as error:
            reasons.append(str(error))
    warn_broken(what, reasons)
    return found


def read_or_none(what: str, path: Path, kind: type[T]) -> T | None:
    """The word of `kind` in `path`; None when it is absent, or, with a warning, when it is broken."""
    return read_sound(what, [path] if path.exists() else [], lambda p: files.read_json(p, kind)).get(path)


def write_over(path: Path, word: object, kind: type) -> None:
    """Write `word` to `path`; a file of that name that is no sound `kind` is renamed first."""
    if path.exists():
        try:
            files.read_json(path, kind)
        except LibraryError:
            files.set_aside(path)
    files.write_json(path, word)


def warn_broken(what: str, reasons: Sequence[str]) -> None:
    """Say in one warning that as many files of `what` were left out, and why."""
    if not reasons:
        return
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    named = "; ".join(reasons[:NAMED]) + more
    line = f"left out {len(reasons)} of {what}: {named}: restore them from a copy, or remove them"
    warnings.warn(line, BrokenFileWarning, stacklevel=4)
