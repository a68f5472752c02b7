"""Error messages."""

from __future__ import annotations

import errno
import os

import pytest

from ripieno.errors import error_summary, system_error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "MemoryError"),
        (ValueError(" \n"), "ValueError"),
        (RuntimeError("\n no room\nat all"), "no room"),
    ],
)
def test_an_error_is_told_in_one_line_even_when_it_says_nothing(error: Exception, line: str) -> None:
    assert error_summary(error) == line


def test_a_line_has_the_type_where_it_is_wanted_and_may_be_the_last() -> None:
    error = RuntimeError("\n no room\nat all\n ")
    assert error_summary(error, named=True) == "RuntimeError: no room"
    assert error_summary(error, line=-1) == "at all"
    assert error_summary(MemoryError(), named=True, line=-1) == "MemoryError"


@pytest.mark.parametrize(
    ("number", "action"),
    [
        (errno.EROFS, "mount it for writing"),
        (errno.EACCES, "change its permissions"),
        (errno.ENOSPC, "free the disk"),
        (errno.EDQUOT, "quota"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.EIO, "check the disk"),
        (errno.ENOLCK, "choose another folder"),
        (errno.ENOSYS, "choose another folder"),
    ],
)
def test_what_the_system_refused_names_the_path_the_reason_and_what_to_do(number: int, action: str) -> None:
    line = system_error(OSError(number, os.strerror(number), "/runs/one"))
    assert line.startswith(f"cannot use /runs/one: {os.strerror(number)}; ")
    assert action in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.EXDEV, "Invalid link", "a", None, "b"),
            "cannot use a and b: Invalid link; choose another folder",
        ),
        (OSError(errno.EIO, "Input/output error", b"a"), "cannot use a: Input/output error; check the disk and the "),
        (OSError("odd"), "a system call failed: odd; "),
        (OSError(), "a system call failed: OSError; "),
    ],
)
def test_an_error_of_the_system_is_told_whatever_it_knows(error: OSError, line: str) -> None:
    assert system_error(error).startswith(line)
