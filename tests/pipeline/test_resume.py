"""A search killed in the middle goes on and ends as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ripieno import Library

TUNE = ["--trials", "5", "--epochs", "3", "--space", "resnet-tiny", "--seed", "3", "--slots", "2"]


def tune(images: Path, run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ripieno", "tune", str(images), "--run", str(run), *TUNE]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def contents(run: Path) -> dict[str, object]:
    """Ids and configurations."""
    return {m.id: dict(m.configuration) for m in Library(run).members()}


def killed_after(members: int, images: Path, run: Path) -> None:
    """Start a search and kill it with SIGKILL when it has that many members."""
    process = tune(images, run)
    until = time.monotonic() + 120
    while len(Library(run)) < members and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_search_ends_with_the_library_of_an_uninterrupted_one(digit_folder: Path, tmp_path: Path) -> None:
    assert tune(digit_folder, tmp_path / "quiet").wait(timeout=240) == 0
    killed_after(1, digit_folder, tmp_path / "killed")
    killed_after(4, digit_folder, tmp_path / "killed")
    assert tune(digit_folder, tmp_path / "killed").wait(timeout=240) == 0
    quiet, killed = contents(tmp_path / "quiet"), contents(tmp_path / "killed")
    assert len(quiet) >= 6
    assert killed == quiet
    for member in quiet:
        same = [Library(tmp_path / run).probabilities(member) for run in ("quiet", "killed")]
        assert np.allclose(*same, atol=1e-5), member


def test_ctrl_c_says_that_the_same_command_goes_on(digit_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ripieno", "tune", str(digit_folder), "--run", str(tmp_path / "run"), *TUNE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while len(Library(tmp_path / "run")) < 1 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "What is finished is kept" in " ".join(errors.split())
    assert "Traceback" not in errors
