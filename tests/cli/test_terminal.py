"""`ripieno tune` in a real terminal."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

from tests.command_line import ripieno
from tests.terminal import ESCAPES, in_terminal

SMALL = ["--epochs", "3", "--space", "resnet-tiny", "--free", "off", "--pool", "inline"]


def test_a_search_is_shown_and_summarised(digit_folder: Path, tmp_path: Path) -> None:
    code, drawn = in_terminal(["tune", str(digit_folder), "--run", "run", "--trials", "2", *SMALL], tmp_path)
    plain = ESCAPES.sub("", drawn)
    assert code == 0, plain
    for word in ("trial 1 of 2", "slots busy 1 of 1", "0 → ", "all trials are done", "members of 2 trials"):
        assert word in plain, plain[-3000:]
    assert "next  ripieno measure run" in plain
    left = plain[plain.rindex("all trials are done") :]
    assert "slots busy" not in left, "the live view disappears when the search ends"


def test_ctrl_c_prints_that_work_is_kept_and_the_command_that_resumes(digit_folder: Path, tmp_path: Path) -> None:
    words = ["tune", str(digit_folder), "--run", "a run", "--trials", "2", *SMALL]
    code, drawn = in_terminal(words, tmp_path, lambda seen: "slots busy" in seen)
    plain = ESCAPES.sub("", drawn).replace("\r\n", " ")
    assert code == 130, plain
    assert "Traceback" not in plain
    assert "Finished work is kept" in plain
    resume = shlex.split(plain[plain.rindex("Resume with:") :].removeprefix("Resume with:"))
    assert resume == ["ripieno", *words]
    resumed = ripieno(*resume[1:], cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "members of 2 trials" in resumed.stdout


def test_ctrl_c_while_it_starts_is_no_traceback(digit_folder: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    words = ["tune", str(digit_folder), "--run", "run", "--trials", "2", *SMALL]
    code, drawn = in_terminal(words, tmp_path, lambda _: time.monotonic() - began > 0.6)
    assert code in (130, -2), drawn
    assert "Traceback" not in drawn


def test_no_color_is_respected(tmp_path: Path) -> None:
    colours = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;[0-9;]*)m")
    for words in (["show", "nowhere"], ["--help"]):
        assert colours.search(in_terminal(words, tmp_path)[1]), words
        assert not colours.search(in_terminal(words, tmp_path, NO_COLOR="1")[1]), words


def test_a_terminal_that_cannot_redraw_gets_lines(digit_folder: Path, tmp_path: Path) -> None:
    words = ["tune", str(digit_folder), "--run", "run", "--trials", "1", "--algorithm", "random", *SMALL]
    code, drawn = in_terminal(words, tmp_path, TERM="dumb")
    assert code == 0, drawn
    assert "started   trial 0" in drawn
    assert "\x1b[1A" not in drawn
