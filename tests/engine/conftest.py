"""Ensembles of small fake members, for lanes in threads and in processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# lane processes import the fake backends by name: they inherit this path
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["thread", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Both ways lanes can run; what passes in one must pass in the other."""
    return str(request.param)
