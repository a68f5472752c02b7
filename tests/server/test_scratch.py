"""Temporary folders, and their removal after their process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ripieno.server.scratch import PREFIX, Scratch


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_when_it_is_removed() -> None:
    scratch = Scratch()
    (scratch.path / "file").write_text("x")
    for _ in range(2):
        scratch.remove()
        assert not scratch.path.exists()


def test_what_a_killed_process_left_is_removed_by_the_next(temporary: Path) -> None:
    script = "import os; from ripieno.server.scratch import Scratch; Scratch(); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    (left,) = temporary.iterdir()
    ours, again = Scratch(), Scratch()
    assert not left.exists()
    assert ours.path.exists(), "what lives is locked"
    ours.remove()
    again.remove()


def test_a_link_in_the_place_of_a_folder_is_not_followed(temporary: Path) -> None:
    (temporary / "precious").mkdir()
    (temporary / f"{PREFIX}x").symlink_to(temporary / "precious")
    Scratch().remove()
    assert (temporary / "precious").exists()


def test_a_forked_child_leaves_the_folder_to_its_parent() -> None:
    scratch = Scratch()
    if not (child := os.fork()):
        scratch.remove()
        os._exit(0)
    os.waitpid(child, 0)
    assert scratch.path.exists()
    scratch.remove()
