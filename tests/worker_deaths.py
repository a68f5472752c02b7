"""Hook of pytest-xdist that tells how a worker of the tests died."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Print the exit code of a worker that died: -9 is SIGKILL; one that still runs has closed its pipe."""
    if error:
        try:
            ended = f"ended with exit code {node.gateway._io.popen.wait(10)}"
        except subprocess.TimeoutExpired:
            ended = "still runs"
        print(f"\n{node.gateway.id} {ended}")  # noqa: T201
