"""The server as a process and as a thread of a program: ports, signals, draining."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.server import Client, infer, serve, start_in_thread
from ripieno.server.run import signal_handlers
from ripieno.types import Bundle
from tests.server.stand_in import ROOT, StandIn, direct_answers
from tests.server.wire import all_of, connect, soon

CHILD = """
import pathlib, sys, threading, time
from ripieno.library.bundle import read_bundle
from ripieno.server import serve
from ripieno.server.run import SWITCH
from tests.server.stand_in import StandIn
engine = StandIn(read_bundle(sys.argv[1]))
slow = float(sys.argv[2])
answer = engine._answer
def slowly(*arguments):
    time.sleep(slow)
    return answer(*arguments)
engine._answer = slowly
turns = []
serve(engine, port=0, ready=lambda url: [turns.append(sys.getswitchinterval()), print(url, flush=True)])
turns.append(sys.getswitchinterval())
print("returned" if turns == [SWITCH, 0.005] else turns, flush=True)
engine.close()
"""


@contextmanager
def child(bundle: Bundle, slow: float = 0.0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a process that serves; its requests take `slow` seconds."""
    command = [sys.executable, "-c", CHILD, str(bundle.path), str(slow)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_sigterm_finishes_requests_under_way_and_exits_0(bundle: Bundle, images: NDArray[np.uint8]) -> None:
    with child(bundle, slow=0.5) as (process, url):
        answers: list[NDArray[np.float32]] = []
        asking = [threading.Thread(target=lambda: answers.append(infer(url, images))) for _ in range(4)]
        for thread in asking:
            thread.start()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join()
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert (out, err) == ("returned\n", "")
        assert len(answers) == 4
        for answer in answers:
            np.testing.assert_allclose(answer, direct_answers(bundle, images).mean(axis=0), atol=1e-6)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url + "/v2", trust_env=False)


def test_an_idle_server_ends_at_once_on_sigint(bundle: Bundle) -> None:
    with child(bundle) as (process, url), httpx.Client(trust_env=False) as http:
        assert http.get(url + "/v2/health/ready").status_code == 200
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(10)
        assert process.returncode == 0
        assert time.monotonic() - began < 3


PROBE = b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\n\r\n"


def test_a_request_that_comes_just_after_sigterm_on_an_open_connection_is_answered_with_connection_close(
    bundle: Bundle,
) -> None:
    with start_in_thread(StandIn(bundle)) as running, connect(running) as client:
        client.sendall(PROBE)
        assert b"connection: close" not in client.recv(65536)
        running._server.stop()
        assert soon(lambda: not running._server.servers[0].is_serving())
        client.sendall(PROBE)
        said = all_of(client)
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in said


def test_connections_that_wait_to_be_accepted_at_sigterm_are_answered(bundle: Bundle) -> None:
    with start_in_thread(StandIn(bundle)) as running:
        loop = running._server._loop
        assert loop is not None
        loop.call_soon_threadsafe(time.sleep, 0.7)
        time.sleep(0.1)  # the event loop is blocked; the kernel accepts connections for it
        clients = [connect(running) for _ in range(20)]
        for client in clients:
            client.sendall(PROBE)
        running._server.stop()
        answers = [all_of(client) for client in clients]
        for client in clients:
            client.close()
        assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 20


def test_a_taken_port_is_one_line(bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RipienoError, match=f"Cannot bind 127.0.0.1:{port}: address in use") as caught:
            serve(StandIn(bundle), port=port)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("127.0.0.1", 70000), ("203.0.113.7", 0)])
def test_an_address_that_cannot_be_had_is_one_line(bundle: Bundle, host: str, port: int) -> None:
    with pytest.raises(RipienoError) as caught:
        serve(StandIn(bundle), host, port)
    assert "\n" not in str(caught.value)


def test_a_server_in_a_thread_answers_and_stops(bundle: Bundle, images: NDArray[np.uint8]) -> None:
    engine = StandIn(bundle)
    with start_in_thread(engine) as running:
        np.testing.assert_allclose(infer(running.url, images), direct_answers(bundle, images).mean(axis=0), atol=1e-6)
    with pytest.raises(RipienoError, match="Check that a server runs there"):
        infer(running.url, images)
    assert not engine.closed, "an engine that was handed in is the caller's to close"
    running.stop()
    engine.close()


def test_the_client_sends_many_images_in_batches(bundle: Bundle) -> None:
    images = np.random.default_rng(0).integers(0, 256, (21, 8, 8, 3), dtype=np.uint8)
    engine = StandIn(bundle)
    with start_in_thread(engine) as running, Client(running.url) as client:
        expected = direct_answers(bundle, images).mean(axis=0)
        np.testing.assert_allclose(client.infer(images, batch=8), expected, atol=1e-6)
        with pytest.raises(RipienoError, match="returned 400: 'images' has shape"):
            client.infer(images[:, :4])
        with pytest.raises(RipienoError, match="images have dtype int64"):
            client.infer(images.astype(np.int64))
    engine.close()


def test_a_signal_is_handled_while_the_block_runs_and_then_as_before() -> None:
    before = signal.getsignal(signal.SIGHUP)
    came: list[int] = []
    with signal_handlers({signal.SIGHUP: lambda number, _: came.append(number)}):
        signal.raise_signal(signal.SIGHUP)
    assert came == [signal.SIGHUP]
    assert signal.getsignal(signal.SIGHUP) == before


def test_in_another_thread_signals_stay_as_they_are() -> None:
    before = signal.getsignal(signal.SIGHUP)
    seen: list[object] = []

    def run() -> None:
        with signal_handlers({signal.SIGHUP: print}):
            seen.append(signal.getsignal(signal.SIGHUP))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
