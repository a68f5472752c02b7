"""Search of the configuration of a command: rungs of instances, results that are kept, resuming, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ripieno.errors import LibraryError, SearchError
from ripieno.library import read_bundle
from ripieno.library.command_record import read_command_record
from ripieno.pipeline import select, tune_command
from ripieno.pipeline.command_search import command_line, ranked_configurations
from ripieno.reports import report
from tests.command_line import ripieno

COMMAND = "sh solver.sh {instance} {a} {seed}"
SOLVER = 'echo "$2 $3 $(cat $1)" >> calls; echo "cost $2"'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return a folder with a solver that notes its calls, four instances and a space."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "solver.sh").write_text(SOLVER)
    (tmp_path / "inst").mkdir()
    for number in range(4):
        (tmp_path / "inst" / f"i{number}").write_text(str(number))
    (tmp_path / "space.json").write_text(json.dumps({"ranges": {"a": {"kind": "integer", "low": 1, "high": 99}}}))
    return tmp_path


def searched(**options):
    given = {"instances": "inst", "cutoff": 20, "space": "space.json", "measure": "output", "pool": "inline"}
    return tune_command(COMMAND, "run", **{**given, "trials": 6, "epochs": 4, **options})


def test_the_best_configuration_is_found_and_no_run_is_repeated(here):
    found = searched()
    assert found == ranked_configurations(here / "run")
    most = [one for one in found if one.instances == 4]
    assert most[0] is found[0]
    assert found[0].loss == found[0].configuration["a"] == min(one.loss for one in most)
    calls = (here / "calls").read_text().splitlines()
    assert len(calls) == len(set(calls)) == sum(one.instances for one in found)
    first = {line.split()[2] for line in calls if line.startswith(f"{found[-1].configuration['a']} ")}
    assert len(first) == found[-1].instances
    record = read_command_record(here / "run")
    assert (
        command_line(record, found[0].configuration)
        == f"sh solver.sh {{instance}} {found[0].configuration['a']} {{seed}}"
    )


def test_a_finished_search_is_resumed_with_more_trials_from_what_is_kept(here):
    before = searched(trials=3)
    calls = (here / "calls").read_text().splitlines()
    after = tune_command(None, "run", trials=5, pool="inline")
    assert len(after) == 5
    assert {str(one.configuration) for one in before} <= {str(one.configuration) for one in after}
    later = (here / "calls").read_text().splitlines()
    assert later[: len(calls)] == calls
    assert len(set(later)) == len(later)
    with pytest.raises(SearchError, match="cutoff differs"):
        searched(cutoff=30)


def test_a_search_that_was_killed_goes_on_without_its_solver(here):
    (here / "solver.sh").write_text(SOLVER + "; sleep 1")
    words = [sys.executable, "-m", "ripieno", "tune", "--command", COMMAND, "--instances", "inst", "--cutoff", "20"]
    words += ["--space", "space.json", "--measure", "output", "--trials", "3", "--epochs", "2", "--slots", "1"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(600):
            if (here / "calls").exists() and list((here / "run" / "results").glob("*.jsonl")):
                break
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (here / "solver.sh").write_text(SOLVER)
    found = tune_command(None, "run", trials=3, pool="inline")
    assert len(found) == 3


def test_runtime_counts_ten_times_the_cutoff_where_it_is_not_solved(here):
    (here / "solver.sh").write_text("exit $(cat $1)")  # the instance 0 alone is solved
    (found,) = searched(measure="runtime", trials=1, algorithm="random")
    assert (found.unsolved, found.instances) == (3, 4)
    assert 150 < found.loss < 151


def test_a_command_that_fails_on_all_instances_ends_the_search_in_one_line(here):
    (here / "solver.sh").write_text("echo no licence >&2; exit 1")
    with pytest.raises(SearchError, match="ended with code 1 on all instances; its last line: 'no licence'") as raised:
        searched(measure="runtime")
    assert "\n" not in str(raised.value)


def test_a_default_configuration_is_tried_first(here):
    one = {"type": "uniform_int", "name": "a", "lower": 1, "upper": 99, "default_value": 42}
    (here / "space.json").write_text(json.dumps({"hyperparameters": [one]}))
    searched(trials=3)
    calls = (here / "calls").read_text().splitlines()
    assert calls[0].split()[0] == "42"
    assert len(tune_command(None, "run", trials=4, pool="inline")) == 4
    assert (here / "calls").read_text().splitlines()[: len(calls)] == calls


def test_the_exit_codes_of_sat_solvers_are_solutions(here):
    (here / "solver.sh").write_text("exit 10")
    (found,) = searched(measure="runtime", trials=1, epochs=2, algorithm="random")
    assert found.unsolved == 0
    assert found.loss < 20


@pytest.mark.parametrize(
    ("solver", "options", "error"),
    [
        ("true", {}, "printed no number for .*; it printed nothing"),
        ("echo oops >&2; exit 4", {}, "ended with code 4 on .*; its last line: 'oops'"),
    ],
)
def test_a_command_that_prints_no_number_ends_the_search_in_one_line(here, solver, options, error):
    (here / "solver.sh").write_text(solver)
    with pytest.raises(SearchError, match=error):
        searched(**options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"cutoff": 0}, "cutoff 0 must be a number of seconds"),
        ({"cutoff": None}, "cutoff is missing"),
        ({"instances": None}, "instances is missing"),
        ({"space": None}, "space is missing"),
        ({"measure": "speed"}, "measure 'speed' is unknown"),
        ({"instances": "absent"}, "absent is no folder"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(here, options, error):
    with pytest.raises(SearchError, match=error):
        searched(**options)
    assert not (here / "calls").exists()


def test_its_run_has_no_members_to_select(here):
    searched(trials=1, epochs=1)
    for refused in (select, report, read_bundle):
        with pytest.raises(LibraryError, match="a search of a command, which has configurations and no members"):
            refused("run")


def test_the_command_line(here):
    words = ["tune", "--command", COMMAND, "--instances", "inst", "--cutoff", "20", "--space", "space.json"]
    done = ripieno(*words, "--measure", "output", "--trials", "2", "--epochs", "2", "--pool", "inline", "--json")
    shown = json.loads(done.stdout)
    assert done.returncode == 0
    assert len(shown["configurations"]) == 2
    assert shown["configured"].startswith("sh solver.sh {instance} ")
    assert shown["configurations"] == json.loads(ripieno("show", "run", "--json").stdout)["configurations"]
    for extra, error in (
        (["data.npz", *words[1:]], "DATA does not go with --command"),
        ([*words[1:], "--weights", "hub"], "--weights does not go with --command"),
        (["--instances", "inst"], "--instances is an option of --command"),
    ):
        refused = ripieno("tune", *extra, "--run", "other")
        assert refused.returncode == 2
        assert error in refused.stderr
