"""Searches of a user's trainer that are killed by SIGKILL in the middle of a promoted trial, and go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import ripieno
from ripieno.library import Library

OPTIONS: dict[str, Any] = {"algorithm": "asha", "trials": 4, "epochs": 3, "seed": 1, "free": "off"}
CALLS = {
    "Killed": (["start", "load", "epoch 2", "epoch 3"], ["start", "load", "epoch 3"]),
    "KilledForgetful": (["start", "epoch 1", "epoch 2", "epoch 3"],) * 2,
}
"""Calls of the trainer of the promoted trial, until it is killed and after that."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    source = load_digits()
    path = tmp_path / "digits.npz"
    np.savez(path, images=(source.images[:200, :, :, None] * 15).astype(np.uint8), labels=source.target[:200])
    return path


@pytest.fixture
def space(tmp_path: Path) -> str:
    path = tmp_path / "space.json"
    path.write_text(json.dumps({"ranges": {"rate": {"kind": "continuous", "low": 0.05, "high": 0.5, "log": True}}}))
    return str(path)


def notes(monkeypatch: pytest.MonkeyPatch, folder: Path, kills: str) -> Path:
    folder.mkdir()
    monkeypatch.setenv("OWN_TRAINER", str(folder))
    monkeypatch.setenv("OWN_TRAINER_KILLS", kills)
    return folder


def uninterrupted(monkeypatch: pytest.MonkeyPatch, data: Path, space: str, tmp_path: Path, trainer: str) -> Library:
    (notes(monkeypatch, tmp_path / "quiet-notes", "nothing") / "victim").touch()
    return ripieno.tune(data, tmp_path / "quiet", space=space, trainer=trainer, pool="inline", **OPTIONS)


def check_same(found: Library, expected: Library) -> None:
    """Check that two libraries hold the same members, to the last bit."""
    assert found.ids() == expected.ids()
    for name in found.ids():
        assert found.member(name).loss == expected.member(name).loss
        assert [e.epoch for e in found.member(name).curve] == [e.epoch for e in expected.member(name).curve]
        assert np.array_equal(found.predictions(name), expected.predictions(name))


def check_calls(folder: Path, name: str) -> None:
    """Check the calls of the trial that was killed: its first step, its promotion to three, and the rest."""
    calls = (folder / (folder / "victim").read_text()).read_text().splitlines()
    killed, resumed = CALLS[name]
    assert calls == ["start", "epoch 1", *killed, *resumed]


@pytest.mark.parametrize("name", CALLS)
def test_a_killed_search_of_a_users_trainer_resumes_to_the_same_members(
    name: str, data: Path, space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, run = f"tests.own_trainer:{name}", tmp_path / "run"
    folder = notes(monkeypatch, tmp_path / "notes", "all")
    options = [f"--{key}={value}" for key, value in OPTIONS.items()]
    command = [sys.executable, "-m", "ripieno", "tune", str(data), f"--run={run}", f"--space={space}", "--slots=1"]
    process = subprocess.run([*command, f"--trainer={trainer}", *options], process_group=0, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert ", steps 1 to 3, " in process.stderr.decode()  # its own unit, counted through the promotion
    assert Library(run).checkpoint_path(int((folder / "victim").read_text())).exists() == (name == "Killed")
    resumed = ripieno.tune(run=run, trainer=trainer, pool="inline")
    check_calls(folder, name)
    check_same(resumed, uninterrupted(monkeypatch, data, space, tmp_path, trainer))
    assert {member.epoch for member in resumed.members()} == {1, 3}


def test_a_killed_worker_goes_on_from_the_checkpoint_of_a_users_trainer(
    data: Path, space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = notes(monkeypatch, tmp_path / "notes", "worker")
    trainer = "tests.own_trainer:Killed"
    found = ripieno.tune(data, tmp_path / "run", space=space, trainer=trainer, slots=1, **OPTIONS)
    check_calls(folder, "Killed")
    check_same(found, uninterrupted(monkeypatch, data, space, tmp_path, trainer))
