"""The door: the Open Inference Protocol v2 over HTTP, as an ASGI application around an engine.

Life of a request, in steps: (1) the route names a model; (2) admission counts it, or answers 503; (3) the body is read
within its limits, or 413, 408; (4) the codec makes an array of it, or 400; (5) the engine is asked and awaited, or 504;
(6) the reply is written; (7) the ticket is given back. Whatever goes wrong is one line of JSON, `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from ripieno import __version__
from ripieno.server import codec, signature
from ripieno.server.body import linger, read_body
from ripieno.server.limits import Admission, Limits
from ripieno.server.line import Asked
from ripieno.server.models import Model, Models, models_of
from ripieno.server.refusal import RefusedError
from ripieno.server.reply import write_response

log = logging.getLogger("ripieno.server")

JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")


def build_app(engine: Asked, limits: Limits | None = None) -> Door:
    """The ASGI application that answers for `engine` within `limits`."""
    limits = limits or Limits()
    return Door(models_of(engine, limits.samples), limits)


class Door:
    """The ASGI application. `draining` makes it answer "not ready" while requests under way are finished."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self.models = models
        self.limits = limits
        self.admission = Admission(limits)
        self.draining = False
        self.router = Router(routes=_routes(self), redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every failure becomes a status and one line."""
        if scope["type"] != "http":
            raise HTTPException(404)  # websockets: uvicorn closes the handshake
        scope["app"] = self  # makes the router raise its 404 and 405 instead of answering in plain text
        try:
            await self.router(scope, receive, send)
        except RefusedError as refusal:
            await _refuse(refusal, scope, receive, send)
        except HTTPException as error:
            await _refuse(_unrouted(error, scope), scope, receive, send)
        except ClientDisconnect:
            log.debug("client left %s", scope["path"])

    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.models.ready() and not self.draining

    async def infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v2/models/M[/versions/V]/infer`."""
        model = self._model(scope["path_params"])
        ticket = self.admission.enter()
        try:
            headers = dict(scope["headers"])
            body, header_length = await read_body(headers, receive, ticket, self.limits)
            request = codec.read_request(body, header_length, model.signature)
            answer = await model.answer(request, min(self.limits.timeout, request.timeout or self.limits.timeout))
            pieces, json_length = write_response(request, answer, model.signature, signature.VERSION)
        finally:
            ticket.leave()
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        start = [(b"content-length", str(len(content)).encode()), JSON if json_length is None else BINARY]
        if json_length is not None:
            start.append((b"inference-header-content-length", str(json_length).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": content})

    def _model(self, path: dict[str, str]) -> Model:
        return self.models.find(path["model"], path.get("version", signature.VERSION))


class _Raw:
    """An ASGI endpoint for a route: what is not a function Starlette hands the bare request."""

    def __init__(self, answer: Callable[[Scope, Receive, Send], Any]) -> None:
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.answer(scope, receive, send)


def _routes(door: Door) -> list[Route]:
    def document(build: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            return Response(orjson.dumps(build(request)), media_type="application/json")

        return answer

    def ready(request: Request) -> Any:
        if "model" in request.path_params:
            door._model(request.path_params)
        if not door.ready():
            raise RefusedError(503, "the server is stopping or has no engine: not ready", 1)
        return {"ready": True}

    def of_model(build: Callable[[Model], Any]) -> Callable[[Request], Any]:
        return lambda request: build(door._model(request.path_params))

    def get(path: str, build: Callable[[Request], Any]) -> Route:
        return Route(path, document(build), methods=["GET"])

    def statistics(models: list[Model]) -> Any:
        return {"model_stats": [m.statistics() for m in models]}

    routes = []
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(f"{model}/infer", _Raw(door.infer), methods=["POST"]),
            get(f"{model}/ready", ready),
            get(f"{model}/config", of_model(lambda m: signature.model_config(m.signature))),
            get(f"{model}/stats", of_model(lambda m: statistics([m]))),
            get(model, of_model(lambda m: signature.model_metadata(m.signature))),
        ]
    index = document(lambda _: signature.repository_index(dict.fromkeys(door.models.by_name, door.ready())))
    return [
        get("/v2/models/stats", lambda _: statistics(list(door.models.by_name.values()))),
        *routes,
        get("/v2/health/live", lambda _: {"live": True}),
        get("/v2/health/ready", ready),
        get("/v2", lambda _: signature.server_metadata(__version__)),
        Route("/v2/repository/index", index, methods=["POST"]),
    ]


def _unrouted(error: HTTPException, scope: Scope) -> RefusedError:
    if error.status_code == 405:
        return RefusedError(405, f"{scope['method']} is not answered at {scope['path'][:80]}")
    return RefusedError(404, f"nothing is at {scope['path'][:80]}: the protocol's routes begin at /v2")


async def _refuse(refusal: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    content = orjson.dumps({"error": str(refusal)})
    headers = [(b"content-length", str(len(content)).encode()), JSON]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    # a body that was refused unread would otherwise be taken for the next request's time and bandwidth
    unread = refusal.status in (408, 413) or (refusal.status == 503 and scope["method"] == "POST")
    if unread:
        headers.append((b"connection", b"close"))
    if refusal.status >= 500:
        log.warning("%s %s: %d %s", scope["method"], scope["path"], refusal.status, refusal)
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": unread})
    if unread:
        await asyncio.shield(linger(receive))
        await send({"type": "http.response.body", "body": b""})
