"""Connections that become idle, or are cut off before their request is complete."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.server import Limits, ServerHandle, start_in_thread
from tests.server.stand_in import StandIn
from tests.server.wire import all_of, connect, refused, soon


@pytest.fixture(scope="module")
def watched(engine: StandIn) -> Iterator[ServerHandle]:
    with start_in_thread(
        engine, limits=Limits(header_timeout=0.4, connections=2, headers=2000, keep_alive=1)
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("head", "after"),
    [("", b"\r\n"), ("Content-Length: 4\r\n", b"xxxx"), ("Content-Length: 4\r\n", b"xxxx\r\n")],
    ids=["an empty line", "a needless body", "both"],
)
def test_what_comes_after_an_answer_and_is_no_request_keeps_no_connection_open(
    watched: ServerHandle, head: str, after: bytes
) -> None:
    with connect(watched) as client:
        client.sendall(f"GET /v2 HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(after)
        assert all_of(client) == b""


def test_an_empty_line_between_two_requests_is_none_of_them(watched: ServerHandle) -> None:
    with connect(watched) as client:
        for _ in range(2):
            client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            client.sendall(b"\r\n")


def test_what_is_cut_before_it_is_a_request_is_counted_among_the_refused(watched: ServerHandle) -> None:
    before = refused(watched)
    for sent, status in (
        (b"hello\r\n\r\n", b"400"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 3000 + b"\r\n\r\n", b"431"),
        (b"GET /v2", b"408"),
    ):
        with connect(watched) as client:
            client.sendall(sent)
            assert all_of(client).startswith(b"HTTP/1.1 " + status)
    assert soon(lambda: not watched._server.server_state.connections)
    with connect(watched), connect(watched), connect(watched) as third:
        assert all_of(third).startswith(b"HTTP/1.1 503")
    assert soon(lambda: not watched._server.server_state.connections)
    after = refused(watched)
    assert {s: n - before.get(s, 0) for s, n in after.items()} == {"400": 1, "408": 1, "431": 1, "503": 1}


UPGRADE = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"


@pytest.mark.parametrize("cut", [None, 20, 120, -30, -1], ids=str)
def test_a_request_that_offers_another_protocol_is_answered_whole(
    engine: StandIn, images: NDArray[np.uint8], cut: int | None
) -> None:
    """The first request of every Java client has an upgrade; its bytes may be split anywhere."""
    body = images.tobytes()
    head = f"POST /v2/models/ensemble/infer HTTP/1.1\r\nHost: x\r\n{UPGRADE}Inference-Header-Content-Length: 0\r\n"
    sent = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    plain = sent.replace(UPGRADE.encode(), b"Connection: close\r\n")
    with start_in_thread(engine) as running, connect(running) as client, connect(running) as other:
        client.sendall(sent[:cut])
        if cut is not None:
            time.sleep(0.1)
            client.sendall(sent[cut:])
        other.sendall(plain)
        wanted = all_of(other).partition(b"\r\n\r\n")[2]
        said = b""
        while wanted not in said:
            chunk = client.recv(65536)
            assert chunk, said
            said += chunk
        assert said.startswith(b"HTTP/1.1 200")
        client.sendall(plain)  # the connection stays open
        assert all_of(client).endswith(wanted)


def test_requests_that_offer_another_protocol_may_come_together(engine: StandIn) -> None:
    with start_in_thread(engine) as running, connect(running) as client:
        client.sendall(f"GET /v2 HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode() * 300)
        client.sendall(b"GET /v2/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = all_of(client)
        assert (said.count(b"HTTP/1.1 200"), said.count(b"HTTP/1.1 404")) == (300, 1)


def test_an_upgrade_of_http_1_0_is_ignored_too(watched: ServerHandle) -> None:
    with connect(watched) as client:
        client.sendall(b"GET /v2 HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert all_of(client).startswith(b"HTTP/1.1 200")


def test_a_proxy_is_not_what_this_is(watched: ServerHandle) -> None:
    with connect(watched) as client:
        client.sendall(b"CONNECT example:443 HTTP/1.1\r\nHost: example\r\n\r\n")
        assert all_of(client).startswith(b"HTTP/1.1 405")


def test_what_is_cut_before_it_is_a_request_has_an_id(watched: ServerHandle) -> None:
    with connect(watched) as client:
        client.sendall(b"hello\r\n\r\n")
        assert b"\r\nx-request-id: " in all_of(client)


@pytest.mark.parametrize(
    "rest", ["", "Host: y\r\n", "X: " + "y" * 3000 + "\r\n", "X : y\r\n"], ids=["no host", "two", "long", "no HTTP"]
)
def test_a_request_that_is_cut_keeps_the_id_its_client_gave(watched: ServerHandle, rest: str) -> None:
    with connect(watched) as client:
        host = "Host: x\r\n" if rest else ""
        client.sendall(f"GET /v2 HTTP/1.1\r\nX-Request-Id: mine\r\n{host}{rest}\r\n".encode())
        said = all_of(client)
        assert said.startswith(b"HTTP/1.1 4")
        assert b"\r\nx-request-id: mine\r\n" in said


@pytest.mark.parametrize(
    ("host", "status"),
    [("my_service:8000", 200), ("[::1]:8000", 200), ("", 200), ("a b", 400), ("x/y", 400), ("x@y", 400), ("x:y", 400)],
)
def test_a_host_that_is_no_name_is_refused(watched: ServerHandle, host: str, status: int) -> None:
    with connect(watched) as client:
        client.sendall(f"GET /v2 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert all_of(client).startswith(f"HTTP/1.1 {status}".encode())


@pytest.mark.parametrize(
    ("target", "answer"),
    [("http://x/v2", b'"name":"ripieno"'), ("HTTP://x:80", b"<!doctype"), ("http://x?a=//b", b"<!doctype")],
)
def test_a_target_may_name_the_server_as_to_a_proxy(watched: ServerHandle, target: str, answer: bytes) -> None:
    with connect(watched) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer in all_of(client)


@pytest.mark.parametrize(("version", "hosts", "status"), [("1.1", 0, 400), ("1.1", 2, 400), ("1.0", 0, 200)])
def test_a_request_of_http_1_1_names_one_host(watched: ServerHandle, version: str, hosts: int, status: int) -> None:
    with connect(watched) as client:
        host = "Host: x\r\n" * hosts
        client.sendall(f"GET /v2 HTTP/{version}\r\n{host}Connection: close\r\n\r\n".encode())
        assert all_of(client).startswith(f"HTTP/1.1 {status}".encode())
