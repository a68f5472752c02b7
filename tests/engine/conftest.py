"""Ensembles of small fake members, for workers in threads and in processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ripieno.engine.event_loop import EventLoop

# worker processes import the fake backends by name: they inherit this path
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["thread", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Both isolations of workers; a test must pass in both."""
    return str(request.param)


@pytest.fixture
def event_loop() -> Iterator[EventLoop]:
    """A running event loop; no call of it may have failed by the end of the test."""
    failures: list[Exception] = []
    made = EventLoop(failures.append)
    made.start()
    yield made
    made.stop()
    assert not failures
