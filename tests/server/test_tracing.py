"""OpenTelemetry traces of requests, collected in memory. Needs the extra `otel`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.engine import Engine
from ripieno.errors import MissingExtraError
from ripieno.server import ServerHandle, start_in_thread
from ripieno.types import Bundle

REASON = "needs OpenTelemetry: pip install 'ripieno[otel]'"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def kept() -> Any:
    pytest.importorskip("opentelemetry.sdk", reason=REASON)
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def traced(bundle: Bundle, kept: Any) -> Iterator[ServerHandle]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with Engine(bundle) as engine, start_in_thread(engine, grpc_port=0, traces=provider) as running:
        yield running


@pytest.fixture
def spans(kept: Any) -> Any:
    kept.clear()
    return kept.get_finished_spans


def ask(url: str, images: NDArray[np.uint8], **headers: str) -> int:
    raw = {"inference-header-content-length": "0", **headers}
    return httpx.post(
        f"{url}/v2/models/ensemble/infer", content=images.tobytes(), headers=raw, trust_env=False
    ).status_code


def test_a_request_is_a_span_with_each_members_queue_and_compute_in_it(
    traced: ServerHandle, spans: Any, images: NDArray[np.uint8], bundle: Bundle
) -> None:
    assert ask(traced.url, images) == 200
    *within, request = spans()
    assert request.name == "POST /v2/models/{model}/infer"
    assert request.attributes["http.response.status_code"] == 200
    assert sorted(s.name for s in within) == sorted(
        f"{what} {m}" for what in ("queue", "compute") for m in bundle.ensemble.members
    )
    for span in within:
        assert span.parent.span_id == request.context.span_id
        assert request.start_time <= span.start_time <= span.end_time <= request.end_time
        assert span.attributes["ripieno.samples"] == len(images)


def test_a_trace_that_the_client_began_goes_on(traced: ServerHandle, spans: Any, images: NDArray[np.uint8]) -> None:
    ask(traced.url, images, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert {f"{s.context.trace_id:032x}" for s in spans()} == {TRACE}
    assert f"{spans()[-1].parent.span_id:016x}" == PARENT


def test_a_trace_that_the_client_does_not_keep_is_not_kept(
    traced: ServerHandle, spans: Any, images: NDArray[np.uint8]
) -> None:
    assert ask(traced.url, images, traceparent=f"00-{TRACE}-{PARENT}-00") == 200
    assert spans() == ()


def test_a_broken_traceparent_begins_a_trace_of_its_own(
    traced: ServerHandle, spans: Any, images: NDArray[np.uint8]
) -> None:
    assert ask(traced.url, images, traceparent="00-" + "f" * 4000) == 200
    assert spans()[-1].parent is None


def test_a_refusal_says_its_status(traced: ServerHandle, spans: Any, images: NDArray[np.uint8]) -> None:
    assert ask(traced.url, images.ravel()[1:]) == 400
    (span,) = spans()
    assert span.attributes["http.response.status_code"] == 400
    assert span.status.is_unset


def test_pictures_for_a_model_that_is_not_there_are_a_span(traced: ServerHandle, spans: Any) -> None:
    assert httpx.post(f"{traced.url}/v2/models/absent/images", content=b"x", trust_env=False).status_code == 404
    (request,) = spans()
    assert (request.name, request.attributes["http.response.status_code"]) == ("POST /v2/models/{model}/images", 404)


def test_a_grpc_call_is_a_span_of_the_clients_trace(
    traced: ServerHandle, spans: Any, images: NDArray[np.uint8]
) -> None:
    grpc = pytest.importorskip("tritonclient.grpc")
    tensor = grpc.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    with grpc.InferenceServerClient(traced.grpc) as client:
        client.infer("ensemble", [tensor], headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert spans()[-1].name == "ModelInfer"
    assert {f"{s.context.trace_id:032x}" for s in spans()} == {TRACE}
    assert len(spans()) == 5


def test_spans_are_sent_where_the_environment_says(
    bundle: Bundle, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=REASON)
    taken: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "birds")
        with start_in_thread(bundle, traces=True) as running:
            assert ask(running.url, images) == 200
        collector.shutdown()
        thread.join()
    ((path, body),) = taken
    assert path == "/v1/traces"
    assert b"birds" in body
    assert all(f"compute {member}".encode() in body for member in bundle.ensemble.members)


def test_without_the_extra_traces_are_refused_in_one_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(MissingExtraError, match=r"ripieno\[otel\]"):
        start_in_thread(bundle, traces=True)


def test_steps_are_collected_on_request_only(bundle: Bundle, images: NDArray[np.uint8]) -> None:
    with Engine(bundle) as engine:
        steps: list[Any] = []
        asked, other = engine.submit(images, steps=steps), engine.submit(images)
        asked.result(), other.result()
    assert sum(s.samples for s in steps) == len(images) * len(bundle.ensemble.members)
    assert all(s.arrived <= s.began <= s.ended for s in steps)
