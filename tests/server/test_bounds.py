"""Slow, silent, numerous, unauthorized and invalid clients; metrics and overview of the server."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from ripieno.errors import RipienoError
from ripieno.server import Client, Limits, ServerHandle, infer, start_in_thread
from ripieno.types import Bundle
from tests.server.stand_in import MEMBERS, StandIn
from tests.server.wire import all_of, connect, flight, soon


@pytest.fixture(scope="module")
def strict(engine: StandIn) -> Iterator[ServerHandle]:
    limits = Limits(header_timeout=0.4, body_timeout=0.5, connections=5, headers=2000, keep_alive=1)
    with start_in_thread(engine, limits=limits) as running:
        yield running


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HT", b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Slow: 1"])
def test_a_client_that_does_not_finish_its_headers_is_cut(strict: ServerHandle, sent: bytes) -> None:
    began = time.monotonic()
    with connect(strict) as client:
        client.sendall(sent)
        assert all_of(client).startswith(b"HTTP/1.1 408")
    assert 0.3 < time.monotonic() - began < 3


def test_headers_sent_drop_by_drop_are_cut_all_the_same(strict: ServerHandle) -> None:
    sent = 0
    with connect(strict) as client, contextlib.suppress(OSError):
        client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n")
        for sent in range(100):  # noqa: B007 (the last value is the result)
            client.sendall(b"X-Drop: 1\r\n")
            time.sleep(0.02)
    assert 10 < sent < 90


def test_a_second_request_on_a_connection_is_watched_too(strict: ServerHandle) -> None:
    with connect(strict) as client:
        client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /v2 HTTP/1.1\r\n")
        assert all_of(client).startswith(b"HTTP/1.1 408")


def test_work_for_a_client_that_left_is_given_up(strict: ServerHandle, engine: StandIn) -> None:
    def under_way() -> float:
        return float(httpx.get(strict.url + "/overview", trust_env=False).json()["flight"]["requests"])

    engine.gate.clear()
    try:
        with connect(strict) as client:
            body = bytes(192)
            head = "POST /v2/models/ensemble/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: 0\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(0.1)
            assert under_way() == 1
        time.sleep(0.1)
        assert under_way() == 0
    finally:
        engine.gate.set()


def test_head_is_answered_without_a_body(strict: ServerHandle) -> None:
    with httpx.Client(trust_env=False) as http:
        for _ in range(2):
            response = http.head(strict.url + "/v2")
            assert (response.status_code, response.content) == (200, b"")
            assert int(response.headers["content-length"]) > 0


def test_requests_sent_ahead_are_answered_in_order(strict: ServerHandle) -> None:
    with connect(strict) as client:
        ask = "GET {} HTTP/1.1\r\nHost: x\r\n{}\r\n"
        client.sendall(
            (ask.format("/v2", "") + ask.format("/no", "") + ask.format("/", "Connection: close\r\n")).encode()
        )
        said = all_of(client)
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


def test_a_client_that_takes_no_answer_is_cut(strict: ServerHandle) -> None:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = strict.url.removeprefix("http://").split(":")
    client.settimeout(10)
    client.connect((host, int(port)))

    def go_on() -> None:
        for _ in range(60):  # more than the buffers of both sockets
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            time.sleep(0.05)

    with client, pytest.raises((ConnectionResetError, BrokenPipeError)):
        go_on()


@pytest.mark.parametrize("path", ["GET /v2/health/live", "POST /v2/repository/index"])
def test_an_unneeded_body_is_not_awaited(strict: ServerHandle, path: str) -> None:
    with connect(strict) as client:
        client.sendall(f"{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode())
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):  # it is cut off while it sends slowly
            while time.monotonic() < began + 5:
                client.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() < began + 3


def test_a_request_whose_needless_body_comes_is_followed_by_others(strict: ServerHandle) -> None:
    with connect(strict) as client:
        for _ in range(2):
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
            time.sleep(0.1)
            client.sendall(b"xxxx")
            time.sleep(0.5)  # longer than the timeout of the next headers
            assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_an_idle_connection_is_closed(strict: ServerHandle) -> None:
    with connect(strict) as client:
        client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        assert all_of(client) == b""


@pytest.mark.parametrize("where", ["target", "one header", "many headers"])
def test_long_headers_are_431(strict: ServerHandle, where: str) -> None:
    target = "/v2/models/" + "x" * 3000 if where == "target" else "/v2"
    headers = {"one header": {"x": "y" * 3000}, "many headers": {f"x-{i}": "y" * 50 for i in range(60)}}.get(where, {})
    response = httpx.get(strict.url + target, headers=headers, trust_env=False)
    assert response.status_code == 431
    assert "limit 2000 bytes" in response.json()["error"]


@pytest.mark.parametrize("sent", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET\r\n\r\n"])
def test_what_is_no_http_is_400_in_json(strict: ServerHandle, sent: bytes) -> None:
    with connect(strict) as client:
        client.sendall(sent)
        head, _, content = all_of(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(content)["error"]


def test_a_connection_too_many_is_503_and_the_others_stay(strict: ServerHandle) -> None:
    time.sleep(0.1)
    opened = [connect(strict) for _ in range(5)]
    try:
        time.sleep(0.05)
        with connect(strict) as sixth:
            assert all_of(sixth).startswith(b"HTTP/1.1 503")
        opened[0].sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert opened[0].recv(65536).startswith(b"HTTP/1.1 200")
    finally:
        for client in opened:
            client.close()
    time.sleep(0.05)
    assert httpx.get(strict.url + "/v2", trust_env=False).status_code == 200


def test_a_token_guards_all_but_probes_and_the_page(engine: StandIn, images: NDArray[np.uint8]) -> None:
    with start_in_thread(engine, token="s3cret") as running:
        for path in ("/v2/health/live", "/v2/health/ready", "/"):
            assert httpx.get(running.url + path, trust_env=False).status_code == 200
        for path in ("/v2", "/metrics", "/overview", "/v2/models/ensemble"):
            response = httpx.get(running.url + path, trust_env=False)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        wrong = {"authorization": "Bearer s3cre"}
        assert httpx.get(running.url + "/v2", headers=wrong, trust_env=False).status_code == 401
        with Client(running.url, token="s3cret") as client:
            assert client.infer(images).shape == (5, 4)


def test_a_token_guards_grpc_too(engine: StandIn) -> None:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    with (
        start_in_thread(engine, token="s3cret", grpc_port=0) as running,
        triton.InferenceServerClient(running.grpc) as client,
    ):
        assert client.is_server_live()
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            client.get_server_metadata()
        assert client.get_server_metadata(headers={"authorization": "Bearer s3cret"}).name == "ripieno"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made_certificate(tmp_path_factory.mktemp("tls"))


def made_certificate(folder: Path) -> tuple[Path, Path]:
    pair = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    try:
        subprocess.run(
            [*command, *names, "-out", str(pair[0]), "-keyout", str(pair[1])], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the command openssl to make a certificate")
    return pair


def test_tls_serves_both_protocols(engine: StandIn, certificate: tuple[Path, Path], images: NDArray[np.uint8]) -> None:
    import grpc
    import tritonclient.grpc as triton

    with start_in_thread(engine, certificate=certificate[0], key=certificate[1], grpc_port=0) as running:
        assert running.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=certificate[0])
        assert httpx.get(running.url + "/v2", verify=trusting, trust_env=False).status_code == 200
        with pytest.raises(RipienoError):
            infer(running.url.replace("https", "http"), images)
        credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
        with triton.InferenceServerClient(running.grpc, ssl=True, creds=credentials) as client:
            assert client.is_server_live()


def shown(address: str) -> bytes:
    """Return the certificate that a server presents to a new client."""
    host, port = address.removeprefix("https://").rsplit(":", 1)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, int(port)), timeout=10) as raw, trusting.wrap_socket(raw) as client:
        seen = client.getpeercert(binary_form=True)
    assert seen is not None
    return seen


def test_a_renewed_certificate_is_shown_from_then_on_and_a_broken_one_never(bundle: Bundle, tmp_path: Path) -> None:
    pair = made_certificate(tmp_path)
    with start_in_thread(bundle.path, certificate=pair[0], key=pair[1], grpc_port=0) as running:
        first = shown(running.url)
        assert shown(running.grpc) == first
        made_certificate(tmp_path)
        assert running.reload()
        renewed = shown(running.url)
        assert renewed != first
        assert shown(running.grpc) == renewed
        pair[0].write_text("no certificate")
        assert not running.reload()
        assert shown(running.url) == shown(running.grpc) == renewed


def expire(pair: tuple[Path, Path]) -> None:
    """Replace a certificate by one that expired yesterday."""
    request = pair[0].with_suffix(".csr")
    for words in (
        ["req", "-new", "-key", str(pair[1]), "-subj", "/CN=localhost", "-out", str(request)],
        ["x509", "-req", "-in", str(request), "-signkey", str(pair[1]), "-days", "-1", "-out", str(pair[0])],
    ):
        subprocess.run(["openssl", *words], check=True, capture_output=True)


def test_an_expired_certificate_replaces_none(bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = made_certificate(tmp_path)
    with start_in_thread(bundle.path, certificate=pair[0], key=pair[1]) as running:
        first = shown(running.url)
        expire(pair)
        assert not running.reload()
        assert shown(running.url) == first
        assert "certificate has expired" in caplog.text


def test_a_server_that_starts_with_an_expired_certificate_warns(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = made_certificate(tmp_path)
    expire(pair)
    with start_in_thread(bundle.path, certificate=pair[0], key=pair[1]) as running:
        assert shown(running.url)
    assert "clients will refuse the certificate" in caplog.text


def test_a_key_that_does_not_fit_leaves_the_certificate(bundle: Bundle, tmp_path: Path) -> None:
    pair = made_certificate(tmp_path)
    with start_in_thread(bundle.path, certificate=pair[0], key=pair[1], grpc_port=0) as running:
        first, key = shown(running.url), pair[1].read_bytes()
        made_certificate(tmp_path)
        pair[1].write_bytes(key)
        assert not running.reload()
        assert shown(running.url) == shown(running.grpc) == first


def test_a_certificate_that_cannot_be_used_is_one_line(
    engine: StandIn, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    for pair in [(certificate[0], None), (tmp_path / "absent", certificate[1]), (tmp_path / "no.pem", certificate[1])]:
        with pytest.raises(RipienoError) as caught:
            start_in_thread(engine, certificate=pair[0], key=pair[1])
        assert len(str(caught.value).splitlines()) == 1


def test_serving_other_machines_without_a_token_is_warned_of(engine: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    with start_in_thread(engine, host="0.0.0.0") as running:
        assert running.url.startswith("http://127.0.0.1:")
    assert "reachable from other machines" in caplog.text


def test_metrics_count_what_happened(bundle: Bundle, images: NDArray[np.uint8]) -> None:
    with start_in_thread(bundle.path) as running:
        infer(running.url, images)
        infer(running.url, images)
        httpx.get(running.url + "/nowhere", trust_env=False)
        text = httpx.get(running.url + "/metrics", trust_env=False).text
    found = {(s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert found["ripieno_inference_requests_total", "ensemble", "success"] == 2
    outcomes = {labels[1] for name, *labels in found if name == "ripieno_inference_requests_total"}
    assert outcomes == {"success", "late", "error"}, "only what can happen, and from the start"
    assert found["ripieno_inference_samples_total", "ensemble"] == 10
    assert found["ripieno_inference_request_duration_seconds_count", "ensemble"] == 2
    assert found["ripieno_inference_request_samples_bucket", "8.0", "ensemble"] == 2
    assert found["ripieno_refused_total", "404"] == 1
    assert found["ripieno_partial_answers_total", "ensemble"] == 0
    for member in MEMBERS:
        assert found["ripieno_member_samples_total", "ensemble", member] == 10
        assert found["ripieno_member_compute_seconds_total", "ensemble", member] > 0
    assert found["ripieno_worker_up", "ensemble", "cpu:0", "0"] == 1
    assert found["ripieno_worker_restarts_total", "ensemble", "cpu:0", "0"] == 0
    assert found["process_resident_memory_bytes",] > 0


def test_metrics_of_workers_keep_their_old_names(bundle: Bundle, images: NDArray[np.uint8]) -> None:
    with start_in_thread(bundle.path) as running:
        infer(running.url, images)
        text = httpx.get(running.url + "/metrics", trust_env=False).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    old = {name for name in families if name.startswith("ripieno_lane_")}
    new = {name for name in families if name.startswith("ripieno_worker_")}
    assert {name.replace("lane", "worker", 1) for name in old} == new
    assert len(new) == 7
    for name in old:
        lane, worker = families[name], families[name.replace("lane", "worker", 1)]
        assert [(tuple(s.labels.values()), s.value) for s in lane.samples] == [
            (tuple(s.labels.values()), s.value) for s in worker.samples
        ]
        assert set(worker.samples[0].labels) == {"bundle", "device", "worker"}
        assert set(lane.samples[0].labels) == {"bundle", "device", "lane"}
        assert lane.type == worker.type
        assert lane.documentation == f"Deprecated: use {worker.samples[0].name}."
        assert "Deprecated" not in worker.documentation


def test_the_overview_says_what_a_terminal_view_needs(bundle: Bundle, images: NDArray[np.uint8]) -> None:
    with start_in_thread(bundle.path) as running:
        infer(running.url, images)
        said = httpx.get(running.url + "/overview", trust_env=False).json()
    assert said["models"]["ensemble"]["samples"] == 5
    assert said["models"]["ensemble"]["p99"] > 0
    assert said["bundles"]["ensemble"]["engine"]["samples"] == 5
    assert said["bundles"]["ensemble"]["engine"]["lanes"][0]["up"]


@pytest.mark.parametrize("said", ["a" * 200, "two\twords"])
def test_a_strange_request_id_is_replaced(engine: StandIn, said: str) -> None:
    with start_in_thread(engine) as running:
        response = httpx.get(running.url + "/nowhere", headers={"x-request-id": said}, trust_env=False)
        assert response.headers["x-request-id"] != said


def test_health_is_reported_while_silent_connections_take_all_there_are(strict: ServerHandle) -> None:
    time.sleep(0.1)
    opened = [connect(strict) for _ in range(5)]
    try:
        for path, status in (("/v2/health/live", b"200"), ("/v2", b"503")):
            with connect(strict) as more:
                more.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert all_of(more)[9:12] == status
    finally:
        for client in opened:
            client.close()


def test_handshakes_that_are_never_finished_are_counted_and_cut(engine: StandIn, tmp_path: Path) -> None:
    pair = made_certificate(tmp_path)
    limits = Limits(connections=5, header_timeout=2)
    with (
        start_in_thread(engine, certificate=pair[0], key=pair[1], limits=limits) as running,
        contextlib.ExitStack() as open_,
    ):
        host, port = running.url.removeprefix("https://").split(":")
        address = host, int(port)
        silent = [open_.enter_context(socket.create_connection(address, timeout=10)) for _ in range(5)]
        time.sleep(0.1)
        with httpx.Client(base_url=running.url, verify=False, trust_env=False) as http:
            assert http.get("/v2/health/live").status_code == 200
            assert http.get("/v2").status_code == 503
            assert [client.recv(1) for client in silent] == [b""] * 5
            assert soon(lambda: http.get("/v2").status_code == 200)


def test_requests_sent_ahead_are_not_read_before_those_before_them_are_answered(
    engine: StandIn, images: NDArray[np.uint8]
) -> None:
    """Otherwise one client could fill the memory, and block all other clients, with parsed requests."""
    with start_in_thread(engine) as running:
        ask = b"POST /v2/models/ensemble/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: 0\r\n"
        ask += b"Content-Length: 192\r\n\r\n" + bytes(192)
        engine.gate.clear()
        try:
            with connect(running) as client, contextlib.suppress(TimeoutError):
                client.settimeout(1)
                client.sendall(ask * 100_000)
            [connection] = running._server.server_state.connections
            assert len(getattr(connection, "pipeline", ())) < 30
        finally:
            engine.gate.set()


def test_an_answer_is_counted_until_its_client_has_taken_it(engine: StandIn) -> None:
    """Unread responses occupy memory, as bodies do."""
    samples = 65536
    with start_in_thread(engine) as running, connect(running) as client:
        outputs = [{"name": "members"}, {"name": "probabilities"}]
        parameters = {"binary_data_size": samples * 192}
        tensor = {"name": "images", "shape": [samples, 8, 8, 3], "datatype": "UINT8", "parameters": parameters}
        head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        client.sendall(
            b"POST /v2/models/ensemble/infer HTTP/1.1\r\nHost: x\r\n"
            + f"Inference-Header-Content-Length: {len(head)}\r\n".encode()
            + f"Content-Length: {len(head) + samples * 192}\r\n\r\n".encode()
            + head
            + bytes(samples * 192)
        )
        assert soon(lambda: running._server.app.models.by_name["ensemble"].stats.requests > 0)
        time.sleep(1)
        assert flight(running)["requests"] == 1
        assert flight(running)["bytes"] > 1 << 20
        client.close()
        assert soon(lambda: flight(running) == flight(running) | {"requests": 0, "bytes": 0})
