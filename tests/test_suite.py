"""The command that runs the tests ends when one of its workers dies."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "pytest.ini": f"[pytest]\npythonpath = {ROOT}",
    "conftest.py": "from tests.worker_deaths import pytest_testnodedown",
    "test_a.py": "def test_a(): pass",
    "test_b.py": "import os\ndef test_b(): pass\ndef test_kill(): os.kill(os.getpid(), 9)\ndef test_last(): pass",
    "test_c.py": "def test_c(): pass",
}


def test_a_worker_that_dies_ends_the_run_with_the_name_of_its_test(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    command = (ROOT / "scripts" / "test").read_text().partition("exec ")[2].replace("\\\n", "")
    options = [word for word in shlex.split(command)[3:-1] if not word.startswith("--numprocesses")]
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses=2", *options]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "crashed while running 'test_b.py::test_kill'" in done.stdout
    assert re.search(r"gw\d ended with exit code -9", done.stdout)
