"""Lines of a text file, read one at a time and of limited length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ripieno.data.walk import shown
from ripieno.errors import DataError

LONGEST = 1 << 28
"""Characters of a line, at most: a series of some ten million points."""


def text_lines(path: Path, comments: tuple[str, ...] = ()) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is not blank and begins with none of `comments`.

    Raises DataError for a file that cannot be read as UTF-8, and for a line of more than `LONGEST` characters.
    """
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as stream:
            while line := stream.readline(LONGEST):
                number += 1
                if len(line) == LONGEST:
                    raise DataError(f"{shown(path)} line {number} has {LONGEST:,} characters or more; cut it")
                text = line.rstrip("\r\n")
                if text.strip() and not text.startswith(comments):
                    yield number, text
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(path)} is no text in UTF-8 ({error.reason}, after line {number}); save it so"
        ) from error
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror or error}") from error
