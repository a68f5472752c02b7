"""What errors say."""

from __future__ import annotations

import pytest

from ripieno.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "MemoryError"),
        (ValueError(" \n"), "ValueError"),
        (RuntimeError("\n no room\nat all"), "no room"),
    ],
)
def test_an_error_is_told_in_one_line_even_when_it_says_nothing(error: Exception, line: str) -> None:
    assert first_line(error) == line
