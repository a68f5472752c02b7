"""Bodies that never come, and clients that leave while they are refused."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ripieno.server import Limits, Running, start
from tests.server.stand_in import StandIn
from tests.server.wire import connect, flight, soon


@pytest.fixture(scope="module")
def impatient(engine: StandIn) -> Iterator[Running]:
    with start(engine, limits=Limits(body=2 << 20, body_timeout=0.4)) as running:
        yield running


@pytest.mark.parametrize("size", [100, 1 << 20])
@pytest.mark.parametrize("path", ["/v2/models/ensemble/infer", "/predict"])
def test_a_body_that_never_begins_is_408_and_holds_nothing(impatient: Running, path: str, size: int) -> None:
    with connect(impatient) as client:
        began = time.monotonic()
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 408"
        assert 0.3 < time.monotonic() - began < 3
        assert (flight(impatient)["requests"], flight(impatient)["bytes"]) == (0, 0)


def test_an_endless_trickle_of_a_body_is_408(impatient: Running) -> None:
    with connect(impatient) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        client.settimeout(0.05)
        began, said = time.monotonic(), b""
        while not said and time.monotonic() < began + 5:
            client.sendall(b"x")
            try:
                said = client.recv(12)
            except TimeoutError:
                continue
        assert said == b"HTTP/1.1 408"


def test_a_client_that_leaves_once_it_is_refused_is_no_mistake_of_ours(
    impatient: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(impatient) as client:
        client.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {3 << 20}\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 413"
        assert impatient._server.server_state.tasks, "what is left of the body is still waited for"
    assert soon(lambda: not impatient._server.server_state.tasks)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_client_that_leaves_after_a_large_body_is_seen(engine: StandIn) -> None:
    body = bytes(4096 * 192)
    with start(engine) as running:
        engine.gate.clear()
        try:
            head = "POST /v2/models/ensemble/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: 0\r\n"
            with connect(running) as client:
                client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                assert soon(lambda: flight(running)["requests"] == 1)
                time.sleep(0.2)
            assert soon(lambda: flight(running)["requests"] == 0)
        finally:
            engine.gate.set()
