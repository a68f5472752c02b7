"""The door: the Open Inference Protocol v2 over HTTP, as an ASGI application around engines.

Life of a request, in steps: (1) the route names a model; (2) admission counts it, or answers 503; (3) the body is read
within its limits, or 413, 408; (4) the codec makes an array of it, or 400; (5) the engine is asked and awaited, or 504;
(6) the reply is written; (7) the ticket is given back. Whatever goes wrong is one line of JSON, `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from ripieno.server import image_endpoint, oip_decode
from ripieno.server.auth import is_authorized, validate_token
from ripieno.server.body import drain_body, read_body
from ripieno.server.fast_path import CallbackBatcher
from ripieno.server.http_errors import HttpError
from ripieno.server.limits import Admission, Limits, OpenConnections, Permit, taking_seconds
from ripieno.server.loop_lag import LoopLag
from ripieno.server.metrics import CONTENT_TYPE, Metrics
from ripieno.server.model_repository import ModelRepository, ModelSources
from ripieno.server.offload import run_in_worker
from ripieno.server.oip_encode import check_size, write_response
from ripieno.server.routes import routes
from ripieno.server.signature import VERSION
from ripieno.server.tracing import Tracer, http_span

log = logging.getLogger("ripieno.server")

JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
PIECE = 1 << 18
"""Bytes of an answer that are sent at once."""
OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""What needs no token: probes have none, and the page is empty without answers."""


def build_app(
    engine: ModelSources, limits: Limits | None = None, token: str | None = None, trusted: Sequence[str] = ()
) -> InferenceApp:
    """The ASGI application that answers for an engine (or bundles, which it opens) within `limits`.

    `trusted` names the user's own families, as of `Engine`.
    """
    limits = limits or Limits()
    return InferenceApp(ModelRepository(engine, "auto", limits.samples, trusted), limits, token)


class InferenceApp:
    """The ASGI application. `draining` makes it answer "not ready" while requests under way are finished."""

    def __init__(
        self,
        house: ModelRepository,
        limits: Limits,
        token: str | None = None,
        reload: bool = False,
        traces: Tracer | None = None,
    ) -> None:
        self.house = house
        self.models = house.models
        self.limits = limits
        self.token = validate_token(token)
        self.reload = reload
        """whether the repository's `load` exchanges bundles"""
        self.traces = traces
        self.draining = False
        self.mailbox: CallbackBatcher | None = None
        """answers on their way into the event loop, once there is one"""
        self.admission = Admission(limits)
        self.opened = OpenConnections(limits.connections)
        self.lag = LoopLag()
        self.metrics = Metrics(self.models, self.admission, self.lag)
        self.router = Router(routes=routes(self), redirect_slashes=False)
        self._series, self._numbers = secrets.token_hex(4), count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every failure becomes a status and one line."""
        if scope["type"] != "http":
            return  # a websocket is not accepted: uvicorn closes its handshake
        scope["app"] = self  # makes the router raise its 404 and 405 instead of answering in plain text
        scope["request_id"] = self.name_of(scope["headers"])
        send = _named(send, scope["request_id"])
        try:
            if self.token is not None and scope["path"] not in OPEN:
                self._check_token(scope)
            model = self.models.by_path.get(scope.get("raw_path", b""))
            if model is not None and scope["method"] == "POST":  # nearly all requests, which need not try every route
                scope["path_params"] = {"model": model}
                await self.infer(scope, receive, send)
            else:
                await self.router(scope, receive, send)
        except HttpError as refusal:
            await self._refuse(refusal, scope, receive, send)
        except HTTPException as error:
            allowed = [(b"allow", v.encode()) for k, v in (error.headers or {}).items() if k.lower() == "allow"]
            await self._refuse(_unrouted(error, scope), scope, receive, send, *allowed)
        except (ClientDisconnect, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and "left" not in scope:
                raise
            log.info("the client left", extra={"request": scope["request_id"]})
        except Exception as error:
            log.exception("a mistake of ours", extra={"request": scope["request_id"]})
            ours = HttpError(500, f"a mistake of the server: {type(error).__name__} (request {scope['request_id']})")
            await self._refuse(ours, scope, receive, send)

    def name_of(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The id of a request: the client's `x-request-id` if it is short and plain, so that it can be followed through
        many servers, else a cheap one."""
        for name, value in headers:
            if name == b"x-request-id" and len(value) <= 128 and value.isascii() and value.decode().isprintable():
                return value.decode()
        return f"{self._series}-{next(self._numbers)}"

    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.models.ready() and not self.draining

    def is_ready(self, model: str, version: str = VERSION) -> bool:
        """Return whether requests to one model are answered. Raises RefusedError (404) for an unknown one."""
        return self.models.find(model, version).engine.engine.ready and not self.draining

    async def infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v2/models/M[/versions/V]/infer`."""
        with http_span(self.traces, scope):
            await self._infer(scope, receive, send)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path_params"]
        began = time.perf_counter()
        with self.admission.enter() as ticket:
            _cancel_when_left(scope)
            (content, json_length), model, samples = await self._answered(path, scope, receive, ticket)
            ticket.settle(len(content))  # held until the client has taken it, as slow as that may be
            await reply(send, 200, content, JSON if json_length is None else BINARY, length=json_length)
        self.note_answer(scope["request_id"], model, samples, began)

    async def _answered(
        self, path: Mapping[str, str], scope: Scope, receive: Receive, ticket: Permit
    ) -> tuple[tuple[oip_decode.Buffer, int | None], str, int]:
        """The answer to an inference as `write_response` writes it, the model's name and the number of samples."""
        with self.models.acquire(path["model"], path.get("version", VERSION)) as model:
            body, header_length = await read_body(scope, receive, ticket, self.limits)
            request = await run_in_worker(len(body), oip_decode.read_request, body, header_length, model.signature)
            # images are a view of the body, or made of its JSON
            ticket.settle(request.images.nbytes if header_length is None else len(body))
            del body
            size = check_size(request, model.signature, self.limits.reply)
            ticket.expect(size)
            answer = await model.answer(request, self.limits.timeout)
            written = await run_in_worker(size, write_response, request, answer, model.signature, VERSION)
        return written, model.signature.name, len(request.images)

    async def pictures(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v2/models/M/images` and `POST /predict`."""
        name = scope["path_params"].get("model") or next(iter(self.models.engines))
        began = time.perf_counter()
        with (
            http_span(self.traces, scope),
            self.models.acquire(name) as model,
            self.admission.enter() as ticket,
        ):
            _cancel_when_left(scope)
            body, _ = await read_body(scope, receive, ticket, self.limits, json=False)
            said = await image_endpoint.answer(scope, body, model, self.limits)
        await reply(send, 200, orjson.dumps(said), JSON)
        self.note_answer(scope["request_id"], model.signature.name, len(said["predictions"]), began)

    def note_answer(self, request: str, model: str, samples: int, began: float) -> None:
        """Log an answered request, by its id; `began` as `time.perf_counter` said it."""
        if log.isEnabledFor(logging.INFO):
            said = {"request": request, "model": model, "samples": samples, "status": 200}
            log.info("answered", extra={**said, "seconds": time.perf_counter() - began})

    async def show_metrics(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """`GET /metrics`."""
        await reply(send, 200, self.metrics.text(), (b"content-type", CONTENT_TYPE))

    def _check_token(self, scope: Scope) -> None:
        assert self.token is not None
        if not is_authorized(dict(scope["headers"]).get(b"authorization", b""), self.token):
            raise HttpError(401, "the request must carry the header 'Authorization: Bearer TOKEN'")

    async def _refuse(
        self, refusal: HttpError, scope: Scope, receive: Receive, send: Send, *headers: tuple[bytes, bytes]
    ) -> None:
        self.admission.refused[refusal.status] += 1
        # there is no more work to give up: a client that leaves from here on must not cancel its own refusal
        scope.get("state", {}).pop("leaving", None)
        level = logging.WARNING if refusal.status >= 500 else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "%s", refusal, extra={"request": scope["request_id"], "status": refusal.status})
        said = list(headers)
        if refusal.retry_after is not None:
            said.append((b"retry-after", str(refusal.retry_after).encode()))
        if refusal.status == 401:
            said.append((b"www-authenticate", b"Bearer"))
        # what is left of a refused body would be read for nothing, or be taken for the next request
        unread = scope["method"] in ("POST", "PUT", "PATCH") and "body_read" not in scope
        if unread:
            said.append((b"connection", b"close"))
        content = orjson.dumps({"error": str(refusal)})
        try:
            await reply(send, refusal.status, content, JSON, *said, more=unread)
            if unread:
                await asyncio.shield(drain_body(receive))
                await send({"type": "http.response.body", "body": b""})
        except RuntimeError:
            log.debug("the answer had already begun")


def _named(send: Send, request_id: str) -> Send:
    """`send` with the request's id among the headers of every response."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
        await send(message)

    return named


def _cancel_when_left(scope: Scope) -> None:
    """Work for a client that has closed its connection is given up: `connection.Connection` calls it then."""
    task = asyncio.current_task()
    assert task is not None

    def leave() -> None:
        scope["left"] = True
        task.cancel()

    scope.setdefault("state", {})["leaving"] = [leave]


async def reply(
    send: Send,
    status: int,
    content: oip_decode.Buffer,
    *headers: tuple[bytes, bytes],
    length: int | None = None,
    more: bool = False,
) -> None:
    """Send one response; `length` is that of the JSON when raw tensors follow it."""
    said = [(b"content-length", str(len(content)).encode()), *headers]
    if length is not None:
        said.append((b"inference-header-content-length", str(length).encode()))
    start: Message = {"type": "http.response.start", "status": status, "headers": said}
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
                await asyncio.sleep(0)  # a client that takes all at once must not keep others waiting
    except TimeoutError:
        raise ClientDisconnect from None


def _unrouted(error: HTTPException, scope: Scope) -> HttpError:
    if error.status_code == 405:
        return HttpError(405, f"{scope['method']} is not answered at {scope['path'][:80]}")
    return HttpError(404, f"nothing is at {scope['path'][:80]}: the protocol's routes begin at /v2")
