"""A process that forks while an engine is open: the child ends, and cannot use the engine of its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.server.stand_in import write_small_bundle

pytest.importorskip("onnxruntime")


def run_forking(folder: Path, in_child: str) -> tuple[int, str]:
    """Return the exit status and output of a process that forks while an engine with threads is open."""
    code = f"""
        import os, sys
        import numpy as np
        from ripieno.engine import Engine
        from ripieno.errors import EngineError
        with Engine({str(folder)!r}, isolation="thread") as engine:
            images = np.zeros((1, *engine.bundle.input.shape), np.uint8)
            child = os.fork()
            if child == 0:
                {in_child}
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(engine.predict(images)), flush=True)
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    return done.returncode, done.stdout


def test_a_forked_child_exits_with_its_own_code_and_the_parent_goes_on(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    assert run_forking(bundle.path, "sys.exit(7)") == (0, "7 1\n")


def test_a_forked_child_is_refused_by_the_engine_of_its_parent(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    submitting = "\n                ".join(
        ["try: engine.submit(images)", "except EngineError as error: os._exit(9 if 'fork' in str(error) else 1)"]
    )
    assert run_forking(bundle.path, submitting) == (0, "9 1\n")
