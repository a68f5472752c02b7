"""Plain requests take the fast path with the same responses; all others take the ASGI path."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.engine.inference_result import Answer
from ripieno.server import Limits, ServerHandle, connection, start_in_thread
from ripieno.server.app import InferenceApp
from ripieno.server.models import Model, ServedEngine
from ripieno.types import Bundle
from tests.server.stand_in import StandIn, direct_answers
from tests.server.wire import connect, flight, soon

INFER = "/v2/models/ensemble/infer"


@pytest.fixture
def asgi_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the URL paths of requests on the ASGI path."""
    paths: list[str] = []
    before = InferenceApp._infer

    async def noted(self: InferenceApp, scope: dict[str, object], *rest: object) -> None:
        paths.append(str(scope["path"]))
        await before(self, scope, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(InferenceApp, "_infer", noted)
    return paths


def post(
    images: NDArray[np.uint8], path: str = INFER, binary: bool = True, *headers: str, **parameters: object
) -> bytes:
    """Return the bytes of a request."""
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "UINT8"}
    raw = images.tobytes() if binary else b""
    tensor |= {"parameters": {"binary_data_size": len(raw)}} if binary else {"data": images.reshape(-1).tolist()}
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}], "parameters": parameters}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(head) + len(raw)}", *headers]
    lines += [f"Inference-Header-Content-Length: {len(head)}"] if binary else []
    return "\r\n".join([*lines, "", ""]).encode() + head + raw


def answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read status, headers and body of the next response, and no byte of the one after."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += client.recv(1)
    first, *lines = said.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines if line)}
    body = b""
    while len(body) < int(headers["content-length"]):
        body += client.recv(int(headers["content-length"]) - len(body))
    return int(first.split()[1]), headers, body


def probabilities(body: bytes) -> NDArray[np.float64]:
    output = json.loads(body)["outputs"][0]
    return np.array(output["data"]).reshape(output["shape"])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("cut", [None, 60, -3], ids=["whole", "cut in the headers", "cut in the body"])
def test_a_plain_request_takes_the_fast_path(
    server: ServerHandle,
    bundle: Bundle,
    images: NDArray[np.uint8],
    asgi_paths: list[str],
    binary: bool,
    cut: int | None,
) -> None:
    sent = post(images, INFER, binary, "X-Request-Id: mine")
    with connect(server) as client:
        for _ in range(3):
            client.sendall(sent[:cut])
            if cut is not None:
                time.sleep(0.02)
                client.sendall(sent[cut:])
            status, headers, body = answer(client)
            assert (status, headers["x-request-id"], headers["content-type"]) == (200, "mine", "application/json")
            assert "date" in headers
            np.testing.assert_allclose(probabilities(body), direct_answers(bundle, images).mean(axis=0), atol=1e-6)
    assert not asgi_paths


@pytest.mark.parametrize(
    "sent",
    [
        lambda images: post(images, INFER, True, timeout=10_000_000),
        lambda images: post(images, INFER, True, "Connection: close"),
        lambda images: post(images, INFER, True, "Content-Encoding: identity"),
        lambda images: post(images, "/v2/models/ensemble/versions/1/infer"),
        lambda images: post(images, INFER + "?x=1", False),
    ],
    ids=["a timeout", "the last", "an encoding", "a version", "a query"],
)
def test_what_is_not_plain_is_answered_all_the_same(
    server: ServerHandle, images: NDArray[np.uint8], asgi_paths: list[str], sent: Callable[[NDArray[np.uint8]], bytes]
) -> None:
    with connect(server) as client:
        client.sendall(sent(images))
        assert answer(client)[0] == 200
    assert len(asgi_paths) == 1


def test_a_body_that_takes_its_time_takes_the_asgi_path(
    server: ServerHandle, images: NDArray[np.uint8], asgi_paths: list[str]
) -> None:
    sent = post(images)
    with connect(server) as client:
        for begin in (0, len(sent) // 2):
            client.sendall(sent[begin : begin + len(sent) // 2])
            time.sleep(0.2)
        client.sendall(sent[len(sent) // 2 * 2 :])
        assert answer(client)[0] == 200
        assert len(asgi_paths) == 1
        client.sendall(sent)
        assert answer(client)[0] == 200
    assert len(asgi_paths) == 1


def test_a_client_that_asks_before_it_sends_gets_100_continue_at_once(
    server: ServerHandle, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SOON", 60.0)
    sent = post(images, INFER, True, "Expect: 100-continue")
    end = sent.index(b"\r\n\r\n") + 4
    with connect(server) as client:
        client.sendall(sent[:end])
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(sent[end:])
        assert answer(client)[0] == 200


def test_a_malformed_request_is_refused_as_ever_and_the_connection_goes_on(
    server: ServerHandle, images: NDArray[np.uint8]
) -> None:
    with connect(server) as client:
        client.sendall(post(images[:, :3]))
        status, _, body = answer(client)
        assert (status, "must be [samples, 8, 8, 3]" in json.loads(body)["error"]) == (400, True)
        client.sendall(post(images))
        assert answer(client)[0] == 200


def test_requests_sent_at_once_are_answered_in_their_order(
    server: ServerHandle, bundle: Bundle, images: NDArray[np.uint8], engine: StandIn
) -> None:
    truth = direct_answers(bundle, images).mean(axis=0)
    about = b"GET /v2/models/ensemble HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = [post(images[:1]), about, post(images[1:3]), post(images[3:]), about]
    engine.gate.clear()
    with connect(server) as client:
        client.sendall(b"".join(sent))
        time.sleep(0.1)
        engine.gate.set()
        bodies = [answer(client)[2] for _ in sent]
    for body, rows in ((bodies[0], truth[:1]), (bodies[2], truth[1:3]), (bodies[3], truth[3:])):
        np.testing.assert_allclose(probabilities(body), rows, atol=1e-6)
    assert json.loads(bodies[1])["name"] == json.loads(bodies[4])["name"] == "ensemble"


def test_a_client_that_leaves_takes_its_request_with_it(
    server: ServerHandle, images: NDArray[np.uint8], engine: StandIn
) -> None:
    engine.gate.clear()
    try:
        with connect(server) as client:
            client.sendall(post(images))
            until = time.monotonic() + 10
            while not flight(server)["requests"] and time.monotonic() < until:
                time.sleep(0.01)
            assert flight(server)["bytes"] > images.nbytes
        while flight(server)["requests"] and time.monotonic() < until:
            time.sleep(0.01)
        assert (flight(server)["requests"], flight(server)["bytes"]) == (0, 0)
    finally:
        engine.gate.set()


def test_both_paths_prepare_submit_and_count_a_request_in_the_same_place(
    server: ServerHandle, images: NDArray[np.uint8], asgi_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for step in ("prepare", "submit"):

        def noted(self: Model, *rest: object, step: str = step, before: object = getattr(Model, step)) -> object:
            steps.append(step)
            return before(self, *rest)  # type: ignore[operator]

        monkeypatch.setattr(Model, step, noted)

    def counts() -> tuple[int, int]:
        said = httpx.get(server.url + "/v2/models/ensemble/stats", trust_env=False).json()["model_stats"][0]
        return said["execution_count"], said["inference_count"]

    before, bodies = counts(), []
    with connect(server) as client:
        for path in (INFER, "/v2/models/ensemble/versions/1/infer"):
            client.sendall(post(images, path))
            bodies.append(answer(client)[2])
    assert bodies[0] == bodies[1]
    assert steps == ["prepare", "submit"] * 2
    assert len(asgi_paths) == 1
    assert counts() == (before[0] + 2, before[1] + 2 * len(images))


@pytest.fixture
def hasty(bundle: Bundle) -> Iterator[tuple[ServerHandle, StandIn]]:
    """Start a server with short timeouts, a token and a limit of two requests."""
    engine = StandIn(bundle)
    with start_in_thread(engine, limits=Limits(timeout=0.2, requests=2), token="secret") as running:
        yield running, engine
    engine.close()


def test_an_answer_that_is_late_is_504_and_one_too_many_503(
    hasty: tuple[ServerHandle, StandIn], images: NDArray[np.uint8], asgi_paths: list[str]
) -> None:
    running, engine = hasty
    sent = post(images, INFER, True, "Authorization: Bearer secret")
    engine.gate.clear()
    clients = [connect(running) for _ in range(3)]
    for client in clients:
        client.sendall(sent)
        time.sleep(0.02)
    said = [answer(client) for client in clients]
    assert [status for status, _, _ in said] == [504, 504, 503]
    assert "no answer within 0.2 s" in json.loads(said[0][2])["error"]
    assert said[2][1]["retry-after"] == "1"
    assert len(asgi_paths) == 1  # the refused one
    engine.gate.set()
    clients[0].sendall(sent)
    assert answer(clients[0])[0] == 200
    for client in clients:
        client.close()


def test_the_token_is_asked_for(hasty: tuple[ServerHandle, StandIn], images: NDArray[np.uint8]) -> None:
    for header, status in (("Authorization: Bearer secret", 200), ("Authorization: Bearer secreu", 401), ("X: y", 401)):
        with connect(hasty[0]) as client:
            client.sendall(post(images, INFER, True, header))
            assert answer(client)[0] == status


def test_an_engine_that_fails_is_500_and_counted(
    server: ServerHandle, engine: StandIn, images: NDArray[np.uint8], asgi_paths: list[str]
) -> None:
    def failures() -> int:
        said: int = httpx.get(server.url + "/overview", trust_env=False).json()["models"]["ensemble"]["failures"]
        return said

    before = failures()
    engine.broken = True
    try:
        with connect(server) as client:
            client.sendall(post(images))
            status, headers, body = answer(client)
    finally:
        engine.broken = False
    assert (status, headers["content-type"]) == (500, "application/json")
    assert json.loads(body)["error"] == "member 00000-e003 died three times: no memory"
    assert failures() == before + 1
    assert not asgi_paths


def test_a_stopping_server_finishes_requests_on_the_fast_path(bundle: Bundle, images: NDArray[np.uint8]) -> None:
    engine = StandIn(bundle)
    running = start_in_thread(engine)
    engine.gate.clear()
    with connect(running) as client:
        client.sendall(post(images))
        time.sleep(0.1)
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        time.sleep(0.3)
        engine.gate.set()
        status, headers, _ = answer(client)
        assert (status, headers["connection"]) == (200, "close")
        assert client.recv(1) == b""
    stopping.join(10)
    assert not stopping.is_alive()
    engine.close()


def engine_of(running: ServerHandle) -> ServedEngine:
    return running._server.app.models.engines["ensemble"]


def test_a_disconnect_cancels_the_request_in_the_engine(
    server: ServerHandle, engine: StandIn, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Future[Answer]] = []

    def submit(*_: object, **__: object) -> Future[Answer]:
        asked.append(Future())
        return asked[-1]

    monkeypatch.setattr(engine, "submit", submit)
    with connect(server) as client:
        client.sendall(post(images))
        assert soon(lambda: engine_of(server).users == 1)
    assert soon(lambda: asked[0].cancelled() and engine_of(server).users == 0)
