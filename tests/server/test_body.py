"""Bodies that never arrive, and clients that disconnect while they are refused."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import httpx
import pytest
from starlette.types import Message, Scope

from ripieno.server import Limits, ServerHandle, start_in_thread
from ripieno.server.body import _unpacked, read_body
from ripieno.server.limits import Admission
from tests.server.stand_in import SHAPE, StandIn
from tests.server.wire import connect, flight, soon


@pytest.fixture(scope="module")
def impatient(engine: StandIn) -> Iterator[ServerHandle]:
    with start_in_thread(engine, limits=Limits(body=2 << 20, body_timeout=0.4)) as running:
        yield running


@pytest.mark.parametrize("size", [100, 1 << 20])
@pytest.mark.parametrize("path", ["/v2/models/ensemble/infer", "/predict"])
def test_a_body_that_never_begins_is_408_and_holds_nothing(impatient: ServerHandle, path: str, size: int) -> None:
    with connect(impatient) as client:
        began = time.monotonic()
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 408"
        assert 0.3 < time.monotonic() - began < 3
        assert (flight(impatient)["requests"], flight(impatient)["bytes"]) == (0, 0)


def test_an_endless_trickle_of_a_body_is_408(impatient: ServerHandle) -> None:
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


def test_a_client_that_leaves_once_it_is_refused_is_no_server_error(
    impatient: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(impatient) as client:
        client.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {3 << 20}\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 413"
        assert impatient._server.server_state.tasks, "what is left of the body is still waited for"
    assert soon(lambda: not impatient._server.server_state.tasks)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_client_that_leaves_after_a_large_body_is_seen(engine: StandIn) -> None:
    body = bytes(4096 * 192)
    with start_in_thread(engine) as running:
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


TENSOR = {"name": "images", "shape": [1, *SHAPE], "datatype": "UINT8", "data": [0] * 192}
PLAIN = json.dumps({"inputs": [TENSOR]}).encode()
INFER = "/v2/models/ensemble/infer"


def bare(body: bytes) -> bytes:
    """Deflate without zlib's frame."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("x-gzip", gzip.compress(PLAIN)),
        ("gzip, identity,", gzip.compress(PLAIN)),
        ("deflate, gzip", gzip.compress(zlib.compress(PLAIN))),
        ("gzip, gzip", gzip.compress(gzip.compress(PLAIN))),
        ("gzip", gzip.compress(PLAIN[:9]) + bytes(9) + gzip.compress(PLAIN[9:]) + bytes(5000)),
        ("gzip", b"".join(gzip.compress(PLAIN[i : i + 1]) for i in range(len(PLAIN)))),
        ("gzip", gzip.compress(PLAIN.replace(b", 0", b"," + b" " * 15_000 + b"0"))),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", bare(PLAIN)),
    ],
    ids=lambda value: value if isinstance(value, str) else "body",  # the bytes of gzip have the time in them
)
def test_a_body_is_read_through_its_codings(http: httpx.Client, coding: str, body: bytes) -> None:
    assert http.post(INFER, content=body, headers={"content-encoding": coding}).status_code == 200


def test_codings_may_stand_in_several_lines(http: httpx.Client) -> None:
    headers = [("content-encoding", "deflate"), ("content-encoding", "gzip")]
    assert http.post(INFER, content=gzip.compress(zlib.compress(PLAIN)), headers=headers).status_code == 200


@pytest.mark.parametrize("coding", ["br", "gzip, br", "gzip, gzip, gzip, gzip"])
def test_a_coding_that_is_not_read_is_refused(http: httpx.Client, coding: str) -> None:
    assert http.post(INFER, content=PLAIN, headers={"content-encoding": coding}).status_code == 415


def test_a_transfer_coding_that_is_not_read_is_refused(server: ServerHandle) -> None:
    packed = gzip.compress(PLAIN)
    with connect(server) as client:
        client.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".encode())
        client.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed))
        assert client.recv(65536).startswith(b"HTTP/1.1 501")


def test_what_follows_a_deflated_body_is_refused(http: httpx.Client) -> None:
    headers = {"content-encoding": "deflate"}
    assert http.post(INFER, content=zlib.compress(PLAIN) + b"more", headers=headers).status_code == 400


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare)])
def test_a_body_is_unpacked_whole_whatever_the_size_of_its_pieces(name: str, pack: Callable[[bytes], bytes]) -> None:
    """The last piece may be full when all input is consumed."""
    for size in (0, 1, 257, 5000):
        for most in (1, 2, 7, 100, 256, 258, 5000, 10_000):
            assert b"".join(_unpacked(pack(bytes(size)), name, most)) == bytes(size)


def test_a_body_that_is_declared_and_does_not_come_keeps_no_memory_from_others(
    http: httpx.Client, server: ServerHandle
) -> None:
    """Four requests that declare a body of the maximum length reach `Limits.held`."""
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {64 << 20}\r\n\r\n".encode()
    with contextlib.ExitStack() as clients:
        for _ in range(8):
            clients.enter_context(connect(server)).sendall(head)
        assert soon(lambda: flight(server)["requests"] == 8)
        assert flight(server)["bytes"] == 0
        assert http.post(INFER, content=PLAIN).status_code == 200


def test_a_long_body_takes_its_own_memory_once() -> None:
    """Joining its pieces would take twice its memory, in the event loop."""
    pieces = 256
    sent = iter(range(pieces))

    async def receive() -> Message:
        at = next(sent)
        return {"type": "http.request", "body": bytes([at]) * (1 << 16), "more_body": at < pieces - 1}

    async def peak_of_reading() -> int:
        limits = Limits()
        scope: Scope = {"headers": []}
        tracemalloc.start()
        try:
            body, _ = await read_body(scope, receive, Admission(limits).enter(), limits)
            assert (len(body), body[0], body[-1]) == (pieces << 16, 0, pieces - 1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert asyncio.run(peak_of_reading()) < 1.5 * (pieces << 16)
