"""The storm test of a server: it runs for some seconds, and detects wrong and lost answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "engine"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "serving"))
from traffic import Connection, Known, UnansweredError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STORM = """
import json, sys
sys.path[:0] = sys.argv[1:]  # a kill and an exchange come first with this seed
import storm
_, seen, bad, _ = storm.once(0.05, 14)
print(json.dumps([seen, bad]))
"""


def test_a_server_holds_in_a_storm_of_some_seconds() -> None:
    command = [sys.executable, "-c", STORM, str(BENCHMARKS / "serving"), str(BENCHMARKS / "engine")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    seen, bad = json.loads(done.stdout)
    assert bad == [], done.stderr
    assert seen["right"] > 0


@pytest.fixture
def known() -> Known:
    truths = [np.random.default_rng(seed).random((2, 6, 4)) for seed in (0, 1)]
    return Known(np.zeros((6, 2, 2, 3), np.uint8), truths, ["a", "b"])


def test_an_answer_is_right_for_its_images_its_bundle_and_its_members_only(known: Known) -> None:
    rows = np.array([3, 1, 5])
    answer = known.truths[0][:, rows].mean(axis=0)
    assert known.right(answer, rows, frozenset({0}), ["a", "b"])
    assert known.right(answer, rows, frozenset({0, 1}), ["a", "b"])
    assert not known.right(answer, rows, frozenset({1}), ["a", "b"])
    assert not known.right(answer, rows, frozenset({0}), ["a"])
    assert not known.right(answer[[1, 0, 2]], rows, frozenset({0}), ["a", "b"])
    assert not known.right(answer[:2], rows, frozenset({0}), ["a", "b"])
    assert not known.right(np.full_like(answer, np.nan), rows, frozenset({0}), ["a", "b"])


@pytest.mark.parametrize(
    "sent",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_connection_that_is_closed_before_its_whole_answer_is_unanswered(sent: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            connection = Connection(*server.sockets[0].getsockname())
            await connection.send(b"GET / HTTP/1.1\r\n\r\n")
            await connection.answer()

    with pytest.raises(UnansweredError):
        asyncio.run(ask())
