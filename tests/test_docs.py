"""Pages of docs/ do what they say: blocks marked with `<!-- run -->` are run in order, each page in its own folder.

Such a page may count on a folder `images`. Its Python blocks share their names; every line of its shell blocks must be
a `ripieno` command. `<!-- run: NAME -->` writes the block to the file NAME. Searches run at a test's size.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ripieno.__main__ import main
from ripieno.cli import console

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"^<!-- run(?:: (?P<file>\S+))? -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if BLOCK.search(page.read_text()))
TINY = {
    "family": "resnet",
    "ranges": {"learning_rate": {"kind": "continuous", "low": 1e-3, "high": 1e-2, "log": True}},
    "fixed": {"width": 4, "stem_filters": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "batch_size": 64},
}
"""A space of networks that train in no time."""


def quick(command: str) -> list[str]:
    """The words of a command at a test's size: seconds instead of hours, in this process."""
    command = re.sub(r"--hours \S+", "--trials 2 --epochs 1", command)
    if command.startswith("ripieno tune"):
        command += " --pool inline" + ("" if "--space" in command else " --space tiny.json")
        command = command.replace("--trials 4", "--trials 2")
    return shlex.split(command, comments=True)


def run_shell(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in text.strip().splitlines():
        program, *words = quick(command)
        assert program == "ripieno", f"only ripieno's commands are run: {command}"
        monkeypatch.setattr(sys, "argv", [program, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, command


def run_python(text: str, page: Path, names: dict[str, Any]) -> None:
    text = re.sub(r"ripieno\.tune\((.*)\)", r'ripieno.tune(\1, pool="inline", space="tiny.json")', text)
    text = text.replace("trials=4", "trials=2")
    exec(compile(text, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marked_blocks_run(
    page: Path, digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digit_folder, tmp_path / "images")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.name}
    for block in BLOCK.finditer(page.read_text()):
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["text"])
        elif block["language"] == "bash":
            run_shell(block["text"], monkeypatch)
        else:
            assert block["language"] == "python", f"{page.name}: {block['language']} cannot be run"
            run_python(block["text"], page, names)
    console.behave(json=False, quiet=False)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_what_docs_say_of_algorithms_is_so() -> None:
    from ripieno.search import ALGORITHMS

    rows = re.findall(
        r"^\| `([\w-]+)` \| `([\w-]+)` \| `([\w-]+)` \|", (ROOT / "docs" / "search.md").read_text(), re.MULTILINE
    )
    assert {name: (scheduler, sampler) for name, scheduler, sampler in rows} == {
        name: (found.scheduler, found.sampler) for name, found in ALGORITHMS.items()
    }
