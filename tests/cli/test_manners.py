"""Every verb speaks the same way: `--json`, `--quiet`, help with an example, one line and one code for errors."""

from __future__ import annotations

import json
import os
import re
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
from ripieno.cli.app import app
from ripieno.library import Library
from tests.cli.test_app import ripieno

ROOT = Path(__file__).resolve().parents[2]
GROUP: Any = typer.main.get_command(app)
Said = Callable[..., tuple[int, str, str]]
VERBS: dict[str, Any] = GROUP.commands


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_and_flag_has_a_help_text_and_the_verb_an_example(verb: str) -> None:
    assert f"`ripieno {verb}" in VERBS[verb].help
    for param in VERBS[verb].params:
        hidden = getattr(param, "hidden", False)
        assert hidden or getattr(param, "help", None), f"{verb} {param.name}"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_both_manners(verb: str) -> None:
    flags = {flag for param in VERBS[verb].params for flag in param.opts}
    assert {"--json", "--quiet"} <= flags


def test_docs_say_every_verb_and_flag() -> None:
    made = subprocess.run([sys.executable, ROOT / "scripts" / "cli-docs", "--check"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    text = (ROOT / "docs" / "cli.md").read_text()
    for verb, command in VERBS.items():
        section = text.split(f"## ripieno {verb}\n")[1].split("\n## ")[0]
        for param in command.params:
            if not getattr(param, "hidden", False):
                name = next((o for o in param.opts if o.startswith("--")), param.metavar or param.name.upper())
                assert f"`{name}" in section, f"{verb} {name}"


@pytest.fixture(scope="module")
def folder(
    finished_run: Path, finished_bundle: Path, digit_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("manners")
    shutil.copytree(finished_run, path / "run")
    shutil.copytree(finished_bundle, path / "bundle")
    shutil.copytree(digit_folder, path / "images")
    np.savez(path / "brought.npz", labels=[0, 1, 1], net=np.full((3, 2), 0.5), costs=[1.0])
    return path


SPOKEN = {
    "tune": (["tune", "images", "--run", "new", "--trials", "1", "--epochs", "1", "--space", "resnet-tiny",
              "--pool", "inline"], {"library", "best", "best_loss", "occupancy", "failures"}),
    "show": (["show", "run"], {"members", "costs", "ensembles", "allocations"}),
    "measure": (["measure", "run"], {"costs", "counts"}),
    "select": (["select", "run", "--budget", "5"], {"ensembles"}),
    "front": (["front", "run"], {"front"}),
    "allocate": (["allocate", "run", "@last", "--bundle", "made", "--max-benches", "0"], {"allocation"}),
    "explain": (["explain", "run", "@last"], {"explanation"}),
    "import": (["import", "brought.npz", "--run", "brought"], {"added"}),
    "report": (["report", "run"], set()),
    "predict": (["predict", "bundle", "images/digit-3"], {"predictions"}),
    "export": (["export", "bundle"], {"form", "card"}),
    "doctor": (["doctor"], {"devices", "parts", "missing"}),
    "evict": (["evict", "run", "--quota", "1GiB"], {"evicted", "left"}),
    "bench": (["bench", "bundle", "--seconds", "0.2"], {"bench"}),
    "cascade": (["cascade", "run", "bundle", "--tolerance", "0.1"], {"cascade"}),
}  # fmt: skip


@pytest.fixture
def said(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Said]:
    """What the command line says in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(folder)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ripieno", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        spoken = capsys.readouterr()
        return int(str(ended.value.code)), spoken.out, spoken.err

    yield run
    console.set_output_mode(json=False, quiet=False)


@pytest.mark.parametrize("verb", SPOKEN)
def test_json_is_one_object_and_the_rest_goes_to_standard_error(said: Said, verb: str) -> None:
    words, keys = SPOKEN[verb]
    last = Library("run").ensembles()[-1].name
    code, out, err = said(*(last if word == "@last" else word for word in words), "--json")
    assert code == 0, err
    spoken = json.loads(out)
    assert {"version", "wrote", "next"} | keys <= set(spoken)
    assert spoken["next"].split()[0] in ("ripieno", "open")


@pytest.mark.parametrize("words", [["show", "nowhere"], ["show"], ["nonsense"], ["show", "run", "--nonsense"]])
def test_an_error_is_an_object_too_and_the_line_stays(said: Said, words: list[str]) -> None:
    code, out, err = said(*words, "--json", "--quiet")
    spoken = json.loads(out)
    assert code == spoken["code"] == 2
    assert " ".join(err.split()) == "error: " + " ".join(spoken["error"].split())


def test_quiet_is_the_result_alone(said: Said) -> None:
    loud, quiet = said("show", "run"), said("show", "run", "--quiet")
    assert "next" in loud[1]
    assert quiet[1] == "".join(line for line in loud[1].splitlines(True) if not line.startswith("next"))
    assert quiet[2] == ""
    assert said("select", "run", "--budget", "5", "--quiet", "--json")[2] == ""


def test_select_notes_the_networks_that_have_no_cost(said: Said) -> None:
    np.savez("priced.npz", labels=[0, 1, 1], net=np.full((3, 2), 0.5), costs=[1.0])
    np.save("other.npy", np.array([[0.6, 0.4], [0.3, 0.7], [0.2, 0.8]]))
    for file in ("priced.npz", "other.npy"):
        assert said("import", file, "--run", "partly")[0] == 0
    for words in (["select", "partly", "--budget", "3"], ["front", "partly"]):
        code, _, err = said(*words)
        assert code == 0, err
        assert "note: 1 of the 2 best networks have no cost in cost and were skipped" in err


def test_without_a_terminal_no_line_is_cut_and_nothing_is_coloured(folder: Path) -> None:
    done = ripieno("show", "run", cwd=folder)
    assert "\x1b" not in done.stdout + done.stderr
    assert "…" not in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_verbs_and_flags(shell: str) -> None:
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
