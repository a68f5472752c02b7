"""Commands in messages: a shell parses them as intended."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ripieno.shell_command import command, shell

NAMES = ["my run", "it's", 'a "b"', "-run", "$HOME", "a;b", "[final]", "zwölf", "a\nb"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_reads_a_path_back_and_no_option(name: str) -> None:
    words = shlex.split(command("show", Path(name)))
    assert words[:2] == ["ripieno", "show"]
    assert Path(words[2]) == Path(name)
    assert not words[2].startswith("-")


def test_options_are_named_as_on_the_command_line_and_none_is_left_out() -> None:
    line = command("allocate", Path("run"), "B20", max_benches=0, bundle=Path("a b"), device=None)
    assert shlex.split(line) == ["ripieno", "allocate", "run", "B20", "--max-benches", "0", "--bundle", "a b"]


def test_a_name_with_a_dash_follows_two_dashes() -> None:
    assert command("allocate", Path("run"), "-x", bundle="b") == "ripieno allocate --bundle b -- run -x"


def test_other_programs_are_called_with_quoted_words_too() -> None:
    assert shlex.split(shell("open", Path("-my report.html"))) == ["open", "./-my report.html"]
