"""The README does what it says: its commands and blocks are run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import ripieno
from tests.command_line import ripieno as in_this_process
from tests.command_line import ripieno_process

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


QUICK = {
    "--hours 1": "--trials 3 --epochs 3 --space resnet-tiny",
    "--bundle bundle": "--bundle bundle --max-benches 2",
    "bench bundle": "bench bundle --seconds 1",
    "hours=1": "trials=3, epochs=3, space='resnet-tiny'",
    'bundle="bundle"': 'bundle="bundle", max_benches=2',
}


def quick(text: str) -> str:
    """The same at a test's size: seconds instead of an hour."""
    for words, fewer in QUICK.items():
        text = text.replace(words, fewer)
    return text


def ripieno_command() -> list[str]:
    return [sys.executable, "-m", "ripieno"]


@pytest.fixture(scope="module")
def folder(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` in it, as the README's reader has one."""
    path = tmp_path_factory.mktemp("readme")
    shutil.copytree(digit_folder, path / "images")
    return path


def test_the_two_commands_are_targets_of_make() -> None:
    named = re.findall(r"^make (\w+)$", README, re.MULTILINE)
    assert named == ["demo", "test"]
    for target in named:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_command_by_hand_works_in_the_order_given(folder: Path) -> None:
    commands = blocks("bash")[0].strip().splitlines()
    assert len(commands) == 10
    for command in commands:
        name, *words = quick(command).split()
        assert name == "ripieno"
        if words[0] == "serve":
            _serves(words, folder)
            continue
        # the workers of a search are those of a shell's process; the others do the same in this one
        done = (ripieno_process if words[0] == "tune" else in_this_process)(*words, cwd=folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "next" in done.stdout, command


def _serves(words: list[str], folder: Path) -> None:
    """`serve` answers, stops at SIGTERM and exits with 0."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [*ripieno_command(), *words, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        url = server.stdout.readline().rpartition(" ")[2].strip()
        with urllib.request.urlopen(f"{url}/v2/health/ready") as answer:
            assert answer.status == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0


def test_the_five_lines_of_python_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    images = np.zeros((3, 8, 8, 1), np.uint8)
    names = {"ripieno": ripieno, "images": images}
    # a process pool needs an importable main module, which a test runner is not: one slot in this process does the same
    text = quick(blocks("python")[0]).replace('run="run"', 'run="run-of-python", pool="inline"')
    exec(compile(text, "README.md", "exec"), names)
    assert np.allclose(np.asarray(names["probabilities"]).sum(axis=1), 1, atol=1e-5)


def test_arrays_go_straight_into_selection() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), size=(6, 50))
    names = {
        "ripieno": ripieno,
        "probabilities": probabilities,
        "labels": rng.integers(0, 4, 50),
        "costs": np.arange(1, 7),
        "print": lambda *_: None,
    }
    exec(compile(blocks("python")[1], "README.md", "exec"), names)
    assert names["choice"].cost <= 20


def test_the_tree_names_folders_that_exist() -> None:
    tree = next(b for b in blocks("") if "ripieno/\n" in b)
    for name in re.findall(r"(\w+)/", tree):
        assert (ROOT / "ripieno" / name).is_dir() or (ROOT / name).is_dir(), name


def test_documents_the_readme_links_to_exist() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.long
@pytest.mark.timeout(900)  # a minute of two cores, but other tests run beside it
def test_a_smaller_demo_runs_and_checks_itself(tmp_path: Path) -> None:
    """`make test-all` runs the whole demo."""
    run = tmp_path / "demo"
    smaller = (
        f"from pathlib import Path; from ripieno.cli.demo import run_demo; run_demo(Path({str(run)!r}), trials=10)"
    )
    done = subprocess.run([sys.executable, "-c", smaller], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "served predictions equal the engine's and the members', combined" in done.stdout
    assert len(list((run / "library").glob("*/member.json"))) >= 6
