"""Ensembles of small fake members, for workers in threads and in processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# worker processes import the fake backends by name: they inherit this path
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["thread", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Both isolations of workers; a test must pass in both."""
    return str(request.param)
