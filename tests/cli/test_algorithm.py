"""The command algorithm: it shows every option, and writes a file that a search takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ripieno.search import ALGORITHMS, Algorithm, find_algorithm
from ripieno.search.algorithms import LADDERS, SCHEDULERS
from ripieno.search.samplers import SAMPLERS
from tests.command_line import ripieno


def test_it_shows_every_option_with_its_value(tmp_path: Path) -> None:
    done = ripieno("algorithm", "bohb", "--step", "2.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {words[0]: words[1] for line in done.stdout.splitlines() if len(words := line.split()) > 2}
    assert (rows["step"], rows["keep"], rows["sampler"], rows["candidates"]) == ("2.5", "3", "multivariate-tpe", "24")
    assert "next  ripieno tune DATA --algorithm bohb --step 2.5" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*ALGORITHMS, "asha-stopping+tpe"])
def test_a_written_file_is_the_algorithm(name: str, tmp_path: Path) -> None:
    done = ripieno("algorithm", name, "--output", "mine.json", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = find_algorithm(tmp_path / "mine.json")
    assert (found, found.name) == (find_algorithm(name), "mine")
    fields = json.loads(done.stdout)
    assert fields["algorithm"] == json.loads((tmp_path / "mine.json").read_text())
    assert fields["next"] == "ripieno tune DATA --algorithm mine.json"


def test_step_and_keep_of_the_file_are_those_asked_for(tmp_path: Path) -> None:
    assert ripieno("algorithm", "--step", "2", "--keep", "4", "--output", "a.json", cwd=tmp_path).returncode == 0
    assert find_algorithm(tmp_path / "a.json") == Algorithm(step=2, keep=4)
    assert ripieno("algorithm", "a.json", "--eta", "5", "--output", "b.json", cwd=tmp_path).returncode == 0
    assert find_algorithm(tmp_path / "b.json") == Algorithm(step=5, keep=5)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["grid"], "no algorithm 'grid'; there are: hyperband"),
        (["--keep", "1"], "keep 1: one in"),
        (["--eta", "3", "--step", "2"], "eta sets step and keep"),
        (["--output", "mine.toml"], "mine.toml: the file of an algorithm ends in .json"),
        (["--output", "there.json"], "there.json exists: give another name"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words: list[str], line: str, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("{}")
    done = ripieno("algorithm", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert " ".join(done.stderr.split()).startswith(f"error: {line}")
    assert (tmp_path / "there.json").read_text() == "{}"
    assert len(list(tmp_path.iterdir())) == 1


def test_it_lists_all_algorithms_schedulers_and_samplers() -> None:
    lines = dict(line.split(maxsplit=1) for line in ripieno("algorithm").stdout.splitlines() if ", " in line)
    assert lines["names"].split(", ") == list(ALGORITHMS)
    assert lines["schedulers"].split(", ") == [*LADDERS, *SCHEDULERS]
    assert lines["samplers"].split(", ") == list(SAMPLERS)
