"""Runs of external commands: no shell, a cutoff that holds, and no process left."""

from __future__ import annotations

import sys
import time

import psutil
import pytest

from ripieno.cluster.command_run import fill, instances_of, parse_command, run_command
from ripieno.errors import SearchError


def python(code, *words):
    return [sys.executable, "-S", "-c", code, *words]


def test_words_are_split_without_a_shell_and_filled():
    words = parse_command("echo '{instance} $HOME' --a={a} ; {seed}", ["a"])
    assert words == ("echo", "{instance} $HOME", "--a={a}", ";", "{seed}")
    filled = fill(words, {"instance": "/x y", "a": 0.5, "seed": 3})
    assert filled == ["echo", "/x y $HOME", "--a=0.5", ";", "3"]
    assert fill(["{on}"], {"on": True}) == ["true"]
    assert run_command(["echo", "$HOME", ";", "7"], 5).last_line == "$HOME ; 7"


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("", "is empty"),
        ("echo 'open", "cannot be split"),
        ("echo {instance}", "does not use 'a' of the space: add {a}"),
        ("echo {a}", "does not use the instance: add {instance}"),
        ("echo {instance} {a} {b}", "has {b}: expected a, cutoff, instance, seed"),
        ("no-such-program {instance} {a}", "'no-such-program' is not there"),
    ],
)
def test_commands_that_cannot_be_run_are_one_line(command, error):
    with pytest.raises(SearchError, match=error):
        parse_command(command, ["a"])


def test_the_last_number_of_standard_output_counts():
    ran = run_command(python("import sys; print('cost 3.5e-2 of v2'); print(9, file=sys.stderr)"), 20)
    assert (ran.code, ran.number, ran.last_line) == (0, 0.035, "cost 3.5e-2 of v2")
    ran = run_command(python("import sys; print('no luck', file=sys.stderr); sys.exit(3)"), 20)
    assert (ran.code, ran.number, ran.last_line) == (3, None, "no luck")


def test_the_cutoff_kills_a_command_that_ignores_it_with_its_children():
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"p = subprocess.Popen([sys.executable, '-S', '-c', {child!r}], start_new_session=True);"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    started = time.monotonic()
    ran = run_command(python(code), 1.5)
    assert time.monotonic() - started < 20
    assert ran.code is None
    assert ran.seconds == 1.5
    assert ran.number is not None
    assert not psutil.pid_exists(int(ran.number)) or psutil.Process(int(ran.number)).status() == "zombie"


def test_processes_that_a_command_leaves_are_counted_and_killed():
    code = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
    ran = run_command(python(code), 20)
    assert (ran.code, ran.left) == (0, 1)
    assert not psutil.pid_exists(int(ran.number))


def test_instances_are_the_files_of_a_folder(tmp_path):
    for name in ("b", "a/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.rpartition("/")[2] for path in instances_of(tmp_path)] == ["c", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SearchError, match="holds no files"):
        instances_of(tmp_path / "empty")
    with pytest.raises(SearchError, match="is no folder"):
        instances_of(tmp_path / "absent")
