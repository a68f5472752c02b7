"""All commands behave alike: help with examples, `--json`, `--quiet`, one line and one exit code for errors."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from ripieno.__main__ import main
from ripieno.cli import console
from ripieno.cli.app import STAGES
from ripieno.cli.main import COMMAND_MODULES, app
from ripieno.library import Library
from tests.command_line import ripieno_process

ROOT = Path(__file__).resolve().parents[2]
GROUP: Any = typer.main.get_command(app)
Run = Callable[..., tuple[int, str, str]]
COMMANDS: dict[str, Any] = GROUP.commands
WIDTH = 80
"""Characters of a line of help, at most."""


def own_params(command: Any) -> list[Any]:
    """Return the visible arguments and options of a command, without typer's own."""
    own = ("help", "install_completion", "show_completion")
    return [p for p in command.params if not getattr(p, "hidden", False) and p.name not in own]


def test_every_command_is_registered_once() -> None:
    assert list(COMMANDS) == [name for names in STAGES.values() for name in names]
    defined = [c.callback.__module__ for c in app.registered_commands if c.callback is not None]
    assert set(defined) == {module.__name__ for module in COMMAND_MODULES}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_line_of_help_is_short_and_without_a_full_stop(name: str) -> None:
    command = COMMANDS[name]
    summary, *body = command.help.splitlines()
    assert not summary.endswith(".")
    assert all(len(line) <= WIDTH for line in (summary, *body))
    for param in own_params(command):
        assert param.help, f"{name} {param.name}"
        assert len(param.help) <= WIDTH, f"{name} {param.name}: {len(param.help)} characters"
        assert not param.help.endswith("."), f"{name} {param.name}"
        assert "`" not in param.help, f"{name} {param.name}: an example belongs in the epilog"


def test_the_help_of_the_program_is_short_and_without_a_full_stop() -> None:
    for text in (GROUP.help, *(param.help for param in own_params(GROUP))):
        assert len(text) <= WIDTH
        assert not text.endswith(".")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_epilog_of_every_command_has_examples_that_parse(name: str) -> None:
    head, *lines = COMMANDS[name].epilog.splitlines()
    assert head in ("Example:", "Examples:")
    examples = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert examples
    for program, command, *words in examples:
        assert (program, command) == ("ripieno", name)
        COMMANDS[name].make_context(f"ripieno {name}", words)


def test_the_modules_of_the_command_line_import_each_other_without_circles() -> None:
    imports = {}
    for path in (ROOT / "ripieno" / "cli").glob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
        imports[path.stem] = {found[1] for n in names if (found := re.match(r"ripieno\.cli\.(\w+)", n))}
    list(graphlib.TopologicalSorter(imports).static_order())  # raises CycleError


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_the_output_options(name: str) -> None:
    options = {option for param in COMMANDS[name].params for option in param.opts}
    assert {"--json", "--quiet"} <= options


def test_the_docs_list_every_command_and_option() -> None:
    made = subprocess.run([sys.executable, ROOT / "scripts" / "cli-docs", "--check"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    text = (ROOT / "docs" / "cli.md").read_text()
    for name, command in COMMANDS.items():
        section = text.split(f"## ripieno {name}\n")[1].split("\n## ")[0]
        for param in own_params(command):
            shown = next((o for o in param.opts if o.startswith("--")), param.metavar or param.name.upper())
            assert f"`{shown}" in section, f"{name} {shown}"


@pytest.fixture(scope="module")
def folder(
    finished_run: Path, finished_bundle: Path, digit_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("manners")
    shutil.copytree(finished_run, path / "run")
    shutil.copytree(finished_bundle, path / "bundle")
    shutil.copytree(digit_folder, path / "images")
    np.savez(path / "predictions.npz", labels=[0, 1, 1], net=np.full((3, 2), 0.5), costs=[1.0])
    return path


JSON_KEYS = {
    "tune": (["tune", "images", "--run", "new", "--trials", "1", "--epochs", "1", "--space", "resnet-tiny",
              "--free", "off", "--pool", "inline"], {"library", "best", "best_loss", "occupancy", "failures"}),
    "algorithm": (["algorithm", "bohb"], {"algorithm"}),
    "show": (["show", "run"], {"members", "costs", "ensembles", "allocations"}),
    "measure": (["measure", "run"], {"costs", "counts"}),
    "select": (["select", "run", "--budget", "5"], {"ensembles"}),
    "front": (["front", "run"], {"front"}),
    "allocate": (["allocate", "run", "@last", "--bundle", "made", "--max-benches", "0"], {"allocation"}),
    "explain": (["explain", "run", "@last"], {"explanation"}),
    "import": (["import", "predictions.npz", "--run", "imported"], {"added"}),
    "report": (["report", "run"], set()),
    "predict": (["predict", "bundle", "images/digit-3"], {"predictions"}),
    "evaluate": (["evaluate", "bundle", "images"], {"scores", "rows", "confusion", "split", "samples"}),
    "export": (["export", "bundle"], {"form", "card"}),
    "doctor": (["doctor"], {"devices", "parts", "missing"}),
    "evict": (["evict", "run", "--quota", "1GiB"], {"evicted", "left"}),
    "bench": (["bench", "bundle", "--seconds", "0.2"], {"bench"}),
    "cascade": (["cascade", "run", "bundle", "--tolerance", "0.1"], {"cascade"}),
}  # fmt: skip


@pytest.fixture
def run_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """A function that runs a command in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(folder)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ripieno", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(str(ended.value.code)), captured.out, captured.err

    yield run
    console.set_output_mode(json=False, quiet=False)


@pytest.mark.parametrize("name", JSON_KEYS)
def test_json_is_one_object_and_the_rest_goes_to_standard_error(run_command: Run, name: str) -> None:
    words, keys = JSON_KEYS[name]
    last = Library("run").ensembles()[-1].name
    code, out, err = run_command(*(last if word == "@last" else word for word in words), "--json")
    assert code == 0, err
    fields = json.loads(out)
    assert {"version", "wrote", "next"} | keys <= set(fields)
    assert fields["next"].split()[0] in ("ripieno", "open")


@pytest.mark.parametrize("words", [["show", "nowhere"], ["show"], ["nonsense"], ["show", "run", "--nonsense"]])
def test_an_error_is_an_object_too_and_the_line_stays(run_command: Run, words: list[str]) -> None:
    code, out, err = run_command(*words, "--json", "--quiet")
    fields = json.loads(out)
    assert code == fields["code"] == 2
    assert " ".join(err.split()) == "error: " + " ".join(fields["error"].split())


def test_quiet_prints_only_results(run_command: Run) -> None:
    loud, quiet = run_command("show", "run"), run_command("show", "run", "--quiet")
    assert "next" in loud[1]
    assert quiet[1] == "".join(line for line in loud[1].splitlines(True) if not line.startswith("next"))
    assert quiet[2] == ""
    assert run_command("select", "run", "--budget", "5", "--quiet", "--json")[2] == ""


def test_select_notes_the_networks_without_a_cost(run_command: Run) -> None:
    np.savez("priced.npz", labels=[0, 1, 1], net=np.full((3, 2), 0.5), costs=[1.0])
    np.save("other.npy", np.array([[0.6, 0.4], [0.3, 0.7], [0.2, 0.8]]))
    for file in ("priced.npz", "other.npy"):
        assert run_command("import", file, "--run", "partly")[0] == 0
    for words in (["select", "partly", "--budget", "3"], ["front", "partly"]):
        code, _, err = run_command(*words)
        assert code == 0, err
        assert "note: 1 of the 2 best members have no cost in cost and were skipped" in err


def test_without_a_terminal_no_line_is_cut_and_nothing_is_coloured(folder: Path) -> None:
    done = ripieno_process("show", "run", cwd=folder)
    assert "\x1b" not in done.stdout + done.stderr
    assert "…" not in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    source = subprocess.run(
        [sys.executable, "-m", "ripieno"],
        capture_output=True,
        text=True,
        env={**os.environ, "_RIPIENO_COMPLETE": f"source_{shell}"},
    )
    assert source.returncode == 0
    assert "_RIPIENO_COMPLETE" in source.stdout
    line = {
        "COMP_WORDS": "ripieno al",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "ripieno al",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    environment = {**os.environ, **line, "_RIPIENO_COMPLETE": f"complete_{shell}"}
    found = subprocess.run([sys.executable, "-m", "ripieno"], capture_output=True, text=True, env=environment)
    assert re.search(r"\ballocate\b", found.stdout), found.stdout + found.stderr
