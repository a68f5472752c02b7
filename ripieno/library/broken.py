"""Unreadable files of a run: kept in place, named in one warning, and skipped.

A full disk, an incomplete copy or a newer version may break one file of thousands. None of them may stop a command, and
none is removed. A new file in the place of a broken one renames the old file first (`files.set_aside`).
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
"""Broken files named in a warning, at most."""


def read_sound(what: str, keys: Iterable[K], read: Callable[[K], T]) -> dict[K, T]:
    """Return the results of `read` for `keys`; name those that raise LibraryError in one warning about `what`."""
    results: dict[K, T] = {}
    reasons: list[str] = []
    for key in keys:
        try:
            results[key] = read(key)
        except LibraryError as error:
            reasons.append(str(error))
    warn_broken(what, reasons)
    return results


def read_or_none(what: str, path: Path, kind: type[T]) -> T | None:
    """Read a value of type `kind` from `path`; None when it is absent, or, with a warning, when it is broken."""
    return read_sound(what, [path] if path.exists() else [], lambda p: files.read_json(p, kind)).get(path)


def write_over(path: Path, word: object, kind: type) -> None:
    """Write `word` to `path`; rename an existing file that is no valid `kind` first."""
    if path.exists():
        try:
            files.read_json(path, kind)
        except LibraryError:
            files.set_aside(path)
    files.write_json(path, word)


def warn_broken(what: str, reasons: Sequence[str], remedy: str = "; restore them from a copy, or remove them") -> None:
    """Warn once about the unusable files of `what`: their number and the reasons."""
    if not reasons:
        return
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    named = "; ".join(reasons[:NAMED]) + more
    line = f"skipped {len(reasons)} of {what}: {named}{remedy}"
    warnings.warn(line, BrokenFileWarning, stacklevel=4)
