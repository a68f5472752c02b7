"""ASGI application: the Open Inference Protocol v2 over HTTP, in front of engines.

Steps of a request: (1) the route selects a model; (2) admission counts the request, or answers 503; (3) the body is
read within its limits, or 413, 408; (4) `oip_decode` converts it to an array, or 400; (5) the engine predicts, or 504;
(6) the response is written; (7) the permit is released. Every error is one line of JSON, `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from ripieno.engine.config import EngineConfig
from ripieno.server import image_endpoint, oip_decode, rows_endpoint
from ripieno.server.auth import check_token, validate_token
from ripieno.server.body import drain_body, read_body
from ripieno.server.event_loop import CallbackBatcher, LoopLag, run_in_worker
from ripieno.server.http_errors import HttpError
from ripieno.server.limits import Admission, Limits, OpenConnections, Permit, taking_seconds
from ripieno.server.metrics import CONTENT_TYPE, Metrics
from ripieno.server.model_repository import ModelRepository, ModelSources
from ripieno.server.models import Model
from ripieno.server.oip_encode import write_response
from ripieno.server.routes import routes
from ripieno.server.signature import VERSION
from ripieno.server.tracing import Tracer, http_span
from ripieno.server.watcher import request_id

log = logging.getLogger("ripieno.server")

JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
PIECE = 1 << 18
"""Bytes of a response that are sent at once."""
OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no token: probes have none, and the page shows nothing but the kind of data without predictions."""


def build_app(
    engine: ModelSources, limits: Limits | None = None, token: str | None = None, trusted: Sequence[str] = ()
) -> InferenceApp:
    """Build the ASGI application for an engine, or for bundles, which it opens, within `limits`.

    `trusted` names the user's own families, as for `Engine`.
    """
    limits = limits or Limits()
    return InferenceApp(ModelRepository(engine, EngineConfig(), limits.samples, trusted), limits, token)


class InferenceApp:
    """The ASGI application. With `draining` it reports "not ready" while in-flight requests finish."""

    def __init__(
        self,
        repository: ModelRepository,
        limits: Limits,
        token: str | None = None,
        reload: bool = False,
        traces: Tracer | None = None,
    ) -> None:
        self.repository = repository
        self.models = repository.models
        self.limits = limits
        self.token = validate_token(token)
        self.reload = reload
        """whether the repository's `load` reloads bundles"""
        self.traces = traces
        self.draining = False
        self.callbacks: CallbackBatcher | None = None
        """callbacks for the event loop from other threads; set once the loop runs"""
        self.admission = Admission(limits)
        self.opened = OpenConnections(limits.connections)
        self.lag = LoopLag()
        self.metrics = Metrics(self.models, self.admission, self.lag)
        self.router = Router(routes=routes(self), redirect_slashes=False)
        self._series, self._numbers = secrets.token_hex(4), count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; every failure becomes a status and one line."""
        if scope["type"] != "http":
            return  # a websocket is not accepted: uvicorn closes its handshake
        scope["app"] = self  # makes the router raise its 404 and 405 instead of answering in plain text
        scope["request_id"] = self.name_of(scope["headers"])
        request_id.set(scope["request_id"])
        send = _with_request_id(send, scope["request_id"])
        try:
            if scope["path"] not in OPEN:
                check_token(dict(scope["headers"]).get(b"authorization", b""), self.token)
            model = self.models.by_path.get(scope.get("raw_path", b""))
            if model is not None and scope["method"] == "POST":  # nearly all requests: they skip the route search
                scope["path_params"] = {"model": model}
                await self.infer(scope, receive, send)
            else:
                await self.router(scope, receive, send)
        except HttpError as error:
            await self._send_error(error, scope, receive, send)
        except HTTPException as error:
            allowed = [(b"allow", v.encode()) for k, v in (error.headers or {}).items() if k.lower() == "allow"]
            await self._send_error(_routing_error(error, scope), scope, receive, send, *allowed)
        except (ClientDisconnect, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and "disconnected" not in scope:
                raise
            log.info("client disconnected", extra={"request": scope["request_id"]})
        except Exception as error:
            log.exception("unhandled exception while serving a request", extra={"request": scope["request_id"]})
            internal = HttpError(
                500, f"Internal server error: {type(error).__name__} (request id {scope['request_id']})"
            )
            await self._send_error(internal, scope, receive, send)

    def name_of(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the client's `x-request-id` if it is short and printable, otherwise a generated id.

        A client's id can be traced across servers.
        """
        for name, value in headers:
            if name == b"x-request-id" and len(value) <= 128 and value.isascii() and value.decode().isprintable():
                return value.decode()
        return f"{self._series}-{next(self._numbers)}"

    def ready(self) -> bool:
        """Return whether requests are served."""
        return self.models.ready() and not self.draining

    def is_ready(self, model: str, version: str = VERSION) -> bool:
        """Return whether requests to one model are served. Raises HttpError (404) for an unknown model."""
        return self.models.find(model, version).engine.engine.ready and not self.draining

    async def infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle `POST /v2/models/M[/versions/V]/infer`."""
        with http_span(self.traces, scope):
            await self._infer(scope, receive, send)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path_params"]
        began = time.perf_counter()
        with self.admission.enter() as permit:
            _cancel_on_disconnect(scope)
            (content, json_length), model, samples = await self._predict(path, scope, receive, permit)
            permit.settle(len(content))  # held until the client has read it, however slowly
            await reply(send, 200, content, JSON if json_length is None else BINARY, length=json_length)
        self.note_answer(scope["request_id"], model, samples, began)

    async def _predict(
        self, path: Mapping[str, str], scope: Scope, receive: Receive, permit: Permit
    ) -> tuple[tuple[oip_decode.Buffer, int | None], str, int]:
        """Return the response as `write_response` writes it, the model's name and the number of samples."""
        with self.models.find(path["model"], path.get("version", VERSION)) as model:
            body, header_length = await read_body(scope, receive, permit, self.limits)
            request, size = await run_in_worker(len(body), model.prepare, body, header_length, self.limits)
            # images are a view of the body, or converted from its JSON or its columns
            held = len(body) if header_length is not None and not model.signature.input.columns else 0
            permit.settle(max(held, request.images.nbytes))
            del body
            permit.expect(size)
            answer = await model.answer(request, self.limits.timeout)
            written = await run_in_worker(size, write_response, request, answer, model.signature, VERSION)
        return written, model.signature.name, len(request.images)

    async def pictures(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle `POST /v2/models/M/images`."""
        await self._document(image_endpoint.answer, scope, receive, send)

    async def rows(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle `POST /v2/models/M/rows`."""
        await self._document(_rows, scope, receive, send)

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle `POST /predict`: rows for a model of a table with named columns, else pictures."""
        of_table = self.models.first.signature.input.columns
        await self._document(_rows if of_table else image_endpoint.answer, scope, receive, send)

    async def _document(
        self,
        answer: Callable[[Scope, bytes | bytearray, Model, Limits, Permit], Awaitable[dict[str, Any]]],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Reply with the document that `answer` returns for the body and the model of the path, or the first."""
        name = scope["path_params"].get("model")
        began = time.perf_counter()
        with (
            http_span(self.traces, scope),
            self.models.find(name) if name else self.models.first as model,
            self.admission.enter() as permit,
        ):
            _cancel_on_disconnect(scope)
            body, _ = await read_body(scope, receive, permit, self.limits)
            document = await answer(scope, body, model, self.limits, permit)
        await reply(send, 200, orjson.dumps(document), JSON)
        self.note_answer(scope["request_id"], model.signature.name, len(document["predictions"]), began)

    def note_answer(self, request: str, model: str, samples: int, began: float) -> None:
        """Log a completed request by its id; `began` is its start by `time.perf_counter`."""
        if log.isEnabledFor(logging.INFO):
            fields = {"request": request, "model": model, "samples": samples, "status": 200}
            log.info("answered", extra={**fields, "seconds": time.perf_counter() - began})

    def note_error(self, error: HttpError, request: str, prefix: str = "") -> None:
        """Count and log the error response to the request with this id."""
        self.admission.refused[error.status] += 1
        level = logging.WARNING if error.status >= 500 else logging.INFO
        log.log(level, "%s%s", prefix, error, extra={"request": request, "status": error.status})

    async def show_metrics(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Handle `GET /metrics`."""
        await reply(send, 200, self.metrics.text(), (b"content-type", CONTENT_TYPE))

    async def _send_error(
        self, error: HttpError, scope: Scope, receive: Receive, send: Send, *more_headers: tuple[bytes, bytes]
    ) -> None:
        self.note_error(error, scope["request_id"])
        # no work is left to cancel: a client that disconnects from here on must not cancel its own error response
        scope.get("state", {}).pop("on_disconnect", None)
        headers = list(more_headers)
        if error.retry_after is not None:
            headers.append((b"retry-after", str(error.retry_after).encode()))
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        # the rest of a refused body would be read for nothing, or be parsed as the next request
        unread = scope["method"] in ("POST", "PUT", "PATCH") and "body_read" not in scope
        if unread:
            headers.append((b"connection", b"close"))
        content = orjson.dumps({"error": str(error)})
        try:
            await reply(send, error.status, content, JSON, *headers, more=unread)
            if unread:
                await asyncio.shield(drain_body(receive))
                await send({"type": "http.response.body", "body": b""})
        except RuntimeError:
            log.debug("the response had already begun")


async def _rows(scope: Scope, body: bytes | bytearray, model: Model, limits: Limits, _: Permit) -> dict[str, Any]:
    """Answer rows of a table: unlike pictures, they are small in memory."""
    return await rows_endpoint.answer(scope, body, model, limits)


def _with_request_id(send: Send, request_id: str) -> Send:
    """Wrap `send` to add the request's id to the headers of every response."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
        await send(message)

    return wrapped


def _cancel_on_disconnect(scope: Scope) -> None:
    """Register the cancellation of this task, which `connection.Connection` calls when the client disconnects."""
    task = asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        scope["disconnected"] = True
        task.cancel()

    scope.setdefault("state", {})["on_disconnect"] = [cancel]


async def reply(
    send: Send,
    status: int,
    content: oip_decode.Buffer,
    *headers: tuple[bytes, bytes],
    length: int | None = None,
    more: bool = False,
) -> None:
    """Send one response; `length` is the length of the JSON when raw tensors follow it."""
    all_headers = [(b"content-length", str(len(content)).encode()), *headers]
    if length is not None:
        all_headers.append((b"inference-header-content-length", str(length).encode()))
    start: Message = {"type": "http.response.start", "status": status, "headers": all_headers}
    await send(start)
    if len(content) <= PIECE:
        await send({"type": "http.response.body", "body": content, "more_body": more})
        return
    try:
        async with asyncio.timeout(taking_seconds(len(content))):
            for at in range(0, len(content), PIECE):
                last = at + PIECE >= len(content)
                piece = bytes(content[at : at + PIECE])
                await send({"type": "http.response.body", "body": piece, "more_body": more or not last})
                await asyncio.sleep(0)  # a fast client must not delay the other clients
    except TimeoutError:
        raise ClientDisconnect from None


def _routing_error(error: HTTPException, scope: Scope) -> HttpError:
    if error.status_code == 405:
        return HttpError(405, f"Method not allowed: {scope['method']} at {scope['path'][:80]}.")
    return HttpError(404, f"Not found: {scope['path'][:80]}. The protocol's routes begin with /v2.")
