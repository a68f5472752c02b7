"""A killed search resumes, with the result of an uninterrupted one."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno import Library
from ripieno.errors import SearchError
from ripieno.search.progress import Snapshot

TUNE = ["--trials", "5", "--epochs", "3", "--space", "resnet-tiny", "--free", "off", "--seed", "3", "--slots", "2"]


def tune(images: Path, run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ripieno", "tune", str(images), "--run", str(run), *TUNE]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def contents(run: Path) -> dict[str, object]:
    """Return ids and configurations."""
    return {m.id: dict(m.configuration) for m in Library(run).members()}


def killed_after(members: int, images: Path, run: Path) -> None:
    """Start a search and kill it with SIGKILL when it has `members` members."""
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
        same = [Library(tmp_path / run).predictions(member) for run in ("quiet", "killed")]
        assert np.allclose(*same, atol=1e-5), member


def test_a_run_goes_on_with_its_own_data_and_settings(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    before = json.loads((run / "run.json").read_text())
    seen: list[Snapshot] = []
    # the four requested trials are done
    ripieno.tune(run=run, pool="inline", free="off", watch=seen.append)
    assert contents(run) == contents(finished_run)
    assert seen[-1].ended == "trials"
    more = ripieno.tune(run=run, trials=5, pool="inline", slots=1, free="off")
    assert {m.trial for m in more.members()} == {0, 1, 2, 3, 4}
    after = json.loads((run / "run.json").read_text())
    assert {**after, "trials": 4} == before


def test_skipped_files_of_the_data_are_noted_before_the_search(digit_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(digit_folder, tmp_path / "copy")
    (tmp_path / "copy" / "cover.png").touch()
    notes: list[str] = []
    seen: list[int] = []

    def watch(_: Snapshot) -> None:
        seen.append(len(notes))
        raise KeyboardInterrupt

    options: dict[str, Any] = {
        "trials": 1,
        "epochs": 1,
        "space": "resnet-tiny",
        "pool": "inline",
        "slots": 1,
        "free": "off",
    }
    with pytest.raises(KeyboardInterrupt):
        ripieno.tune(tmp_path / "copy", tmp_path / "run", notes=notes, watch=watch, **options)
    assert seen[0]
    assert "1 outside a class folder (first: cover.png)" in notes[0]


def test_code_of_the_users_is_named_again_to_go_on(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    record = json.loads((run / "run.json").read_text())
    record["space"]["family"] = "own_family:build"
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(SearchError, match=r"names the family 'own_family:build'.* --family own_family:build"):
        ripieno.tune(run=run)


def test_ctrl_c_says_that_the_same_command_goes_on(digit_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ripieno", "tune", str(digit_folder), "--run", str(tmp_path / "run"), *TUNE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while len(Library(tmp_path / "run")) < 1 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Finished work is kept" in " ".join(errors.split())
    assert "Traceback" not in errors
