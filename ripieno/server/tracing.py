"""OpenTelemetry traces (extra `otel`): a span per request, with spans of each member's queueing and computing.

Disabled by default. OpenTelemetry's variables configure the exporter, the sampler and the service name
(`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, ...). A
client's trace is continued: W3C's `traceparent`, as a header or as gRPC metadata.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from ripieno import __version__
from ripieno.errors import require
from ripieno.server.http_errors import HttpError

if TYPE_CHECKING:
    from ripieno.engine.inference_result import InferenceStep

FLUSH_SECONDS = 5.0
"""Maximum wait of a stopping server for the export of its last spans."""
steps: ContextVar[list[InferenceStep] | None] = ContextVar("steps", default=None)
"""Collects the members' steps for the current request, if its trace is recorded."""


class Tracer:
    """Creator of spans with `provider`, by default one that exports as the environment configures.

    Raises MissingExtraError without OpenTelemetry.
    """

    def __init__(self, provider: Any = None) -> None:
        require("opentelemetry.sdk")
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._provider = provider or _exporting()
        self._owned = provider is None
        self._tracer = self._provider.get_tracer("ripieno", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, name: str, carrier: Mapping[str, str], attributes: Mapping[str, Any]) -> Iterator[None]:
        """Record a span while the block runs, in the trace of `carrier` if it has one; add the members' at the end."""
        context = self._propagator.extract(dict(carrier), self._api.set_span_in_context(self._api.INVALID_SPAN))
        kind = self._api.SpanKind.SERVER
        span = self._tracer.start_span(name, context, kind=kind, attributes=dict(attributes))
        collected: list[InferenceStep] = []
        token = steps.set(collected if span.is_recording() else None)
        try:
            yield
        except HttpError as refusal:
            span.set_attribute("http.response.status_code", refusal.status)
            if refusal.status >= 500:
                span.set_status(self._api.StatusCode.ERROR, str(refusal))
            raise
        except BaseException as error:
            span.set_status(self._api.StatusCode.ERROR, type(error).__name__)
            raise
        else:
            span.set_attribute("http.response.status_code", 200)
        finally:
            steps.reset(token)
            if collected:
                self._members(span, tuple(collected))
            span.end()

    def _members(self, parent: Any, collected: tuple[InferenceStep, ...]) -> None:
        within = self._api.set_span_in_context(parent)
        epoch = time.time() - time.monotonic()
        for step in collected:
            attributes = {"ripieno.member": step.member, "ripieno.lane": step.lane, "ripieno.samples": step.samples}
            for name, start, end in (("queue", step.arrived, step.began), ("compute", step.began, step.ended)):
                began, ended = (int((epoch + moment) * 1e9) for moment in (start, end))
                span = self._tracer.start_span(f"{name} {step.member}", within, attributes=attributes, start_time=began)
                span.end(ended)

    def close(self) -> None:
        """Export the remaining spans, for at most FLUSH_SECONDS; the user's own provider stays open."""
        if self._owned:
            sending = threading.Thread(target=self._provider.shutdown, daemon=True)
            sending.start()
            sending.join(FLUSH_SECONDS)


def _exporting() -> Any:
    require("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = Resource({"service.name": "ripieno", "service.version": __version__})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def http_span(traces: Tracer | None, scope: Scope) -> AbstractContextManager[None]:
    """Return the span of an HTTP request; without `traces`, a context without effect."""
    if traces is None:
        return nullcontext()
    route = "/".join("{model}" if i == 3 else part for i, part in enumerate(scope["path"].split("/")))
    attributes = {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "ripieno.request": scope["request_id"],
    }
    carrier = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"] if k in _CARRIED}
    return traces.request(f"{scope['method']} {route}", carrier, attributes)


def grpc_span(traces: Tracer | None, method: str, metadata: Any) -> AbstractContextManager[None]:
    """Return the span of a gRPC call; without `traces`, a context without effect."""
    if traces is None:
        return nullcontext()
    carrier = {str(k): v for k, v in metadata or () if str(k).encode() in _CARRIED and isinstance(v, str)}
    return traces.request(method, carrier, {"rpc.system": "grpc", "rpc.method": method})


_CARRIED = (b"traceparent", b"tracestate")
