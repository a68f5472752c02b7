"""`ripieno compare`: tables on a terminal of 80 columns, JSON, and errors."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from ripieno.library import Library
from ripieno.types import Member
from tests.command_line import ripieno as command
from tests.reports.made_run import make_run
from tests.terminal import ESCAPES, in_terminal


def worse(member: Member) -> Member:
    losses = member.losses | {"valid_cross_entropy": 2 * member.loss}
    return dataclasses.replace(member, losses=losses, configuration={**member.configuration, "width": 99})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare")
    for name in ("run-of-monday", "run-of-tuesday", "run-of-wednesday"):
        library = make_run(path / name, ("a", "b"), members=18)
        for member in library.members() if name != "run-of-monday" else ():
            library.update(worse(member))
    return path


RUNS = ["run-of-monday", "run-of-tuesday", "run-of-wednesday"]


def test_three_runs_fit_a_terminal_of_80_columns(folder: Path) -> None:
    code, drawn = in_terminal(["compare", *RUNS], folder)
    assert code == 0, drawn
    lines = ESCAPES.sub("", drawn).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    head = next(line for line in lines if line.split() == RUNS)
    loss = min(m.loss for m in Library(folder / RUNS[0]).members())
    (row,) = (line for line in lines if line.startswith("lowest cross-entropy"))
    assert row.split()[2:] == [f"{loss:.4f}", f"{2 * loss:.4f}", f"{2 * loss:.4f}"]
    assert head.index(RUNS[1]) > head.index(RUNS[0])
    bold = re.findall(r"\x1b\[1m +([\d.]+)\x1b", drawn)
    assert f"{loss:.4f}" in bold
    assert f"{2 * loss:.4f}" not in bold


def test_many_runs_are_printed_as_lines(folder: Path) -> None:
    code, drawn = in_terminal(["compare", *RUNS], folder, size=(24, 50))
    assert code == 0
    lines = ESCAPES.sub("", drawn).splitlines()
    assert "lowest cross-entropy" in lines, drawn
    at = lines.index("lowest cross-entropy")
    assert lines[at + 1].startswith("  run-of-monday ")


def test_json_is_the_record(folder: Path) -> None:
    ended = command("compare", *RUNS, "--json", "--csv", "out.csv", "--html", "out.html", cwd=folder)
    found = json.loads(ended.stdout)
    assert [run["name"] for run in found["runs"]] == RUNS
    assert found["wrote"] == ["out.csv", "out.html"]
    assert found["next"] == "open out.html"
    assert found["configurations"]["width"][1:] == [99, 99]
    assert found["runs"][0]["curve"][-1] == [found["runs"][0]["seconds"], found["runs"][0]["loss"]]
    assert (folder / "out.csv").read_text().startswith("run,path,")
    assert (folder / "out.html").read_text().startswith("<!doctype html>")


def test_an_error_is_one_line(folder: Path) -> None:
    for words, text in ((RUNS[:1], "needs two runs or more"), (RUNS[:2] + RUNS[:1], "are the same run")):
        ended = command("compare", *words, cwd=folder)
        assert ended.returncode == 2
        assert text in ended.stderr
        assert ended.stderr.count("\n") == 1
