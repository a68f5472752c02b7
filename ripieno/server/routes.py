"""Which path is answered by what; the documents of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ripieno import __version__
from ripieno.server import signature
from ripieno.server.body import read_body
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.models import Model
from ripieno.server.openapi import openapi

if TYPE_CHECKING:
    from ripieno.server.app import InferenceApp

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'"
)
"""The page loads nothing from anywhere, and shows only what was dropped on it."""


class _Raw:
    """An ASGI endpoint for a route: what is not a function Starlette hands the bare request."""

    def __init__(self, answer: Callable[[Scope, Receive, Send], Any]) -> None:
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.answer(scope, receive, send)


def routes(door: InferenceApp) -> list[Route]:
    """Every path that `door` answers."""
    models = door.models

    def ready(request: Request) -> Any:
        path = request.path_params
        up = door.is_ready(path["model"], path.get("version", signature.VERSION)) if "model" in path else door.ready()
        if not up:
            raise HttpError(503, "Not ready: the server is stopping, or a worker is not up.", 1)
        return {"ready": True}

    def of_model(build: Callable[[Model], Any]) -> Callable[[Request], Any]:
        return lambda request: build(_model(door, request))

    per_model = []
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        per_model += [
            Route(f"{model}/infer", _Raw(door.infer), methods=["POST"]),
            Route(f"{model}/images", _Raw(door.pictures), methods=["POST"]),
            _get(f"{model}/ready", ready),
            _get(f"{model}/config", of_model(lambda m: signature.model_config(m.signature))),
            _get(f"{model}/stats", of_model(lambda m: {"model_stats": [m.statistics()]})),
            _get(model, of_model(lambda m: signature.model_metadata(m.signature))),
        ]
    return [
        _get("/v2/models/stats", lambda _: {"model_stats": [m.statistics() for m in models.by_name.values()]}),
        *per_model,
        _get("/v2/health/live", lambda _: {"live": True}),
        _get("/v2/health/ready", ready),
        _get("/v2", lambda _: signature.server_metadata(__version__)),
        _post("/v2/repository/index", lambda _: signature.repository_index(models.readiness())),
        Route("/v2/repository/models/{model}/load", _Loading(door), methods=["POST"]),
        Route("/predict", _Raw(door.pictures), methods=["POST"]),
        Route("/metrics", _Raw(door.show_metrics), methods=["GET"]),
        _get("/openapi.json", lambda _: _described(door)),
        _get("/overview", lambda _: overview(door)),
        Route("/", _page, methods=["GET"]),
    ]


def _document(build: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        return Response(orjson.dumps(build(request)), media_type="application/json")

    return answer


def _get(path: str, build: Callable[[Request], Any]) -> Route:
    return Route(path, _document(build), methods=["GET"])


def _post(path: str, build: Callable[[Request], Any]) -> Route:
    return Route(path, _document(build), methods=["POST"])


def _model(door: InferenceApp, request: Request) -> Model:
    return door.models.find(request.path_params["model"], request.path_params.get("version", signature.VERSION))


class _Loading:
    """`POST /v2/repository/models/M/load`: the same bundle again, from where it came; nothing else can be named."""

    def __init__(self, door: InferenceApp) -> None:
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path_params"]["model"]
        if not self.door.reload:
            raise HttpError(403, "bundles are not exchanged over the network here: start the server with reload=True")
        if name not in self.door.models.engines:
            raise HttpError(404, f"no bundle {name[:80]!r}; there are: {', '.join(self.door.models.engines)}")
        await self._check_body(scope, receive)
        if not await self.door.house.reload(name):
            raise HttpError(500, f"{name} could not be loaded again, the old bundle goes on: see the server's log")
        await Response(b"{}", media_type="application/json")(scope, receive, send)

    async def _check_body(self, scope: Scope, receive: Receive) -> None:
        """Refuse parameters (Triton's override of the configuration or of files): what is loaded is the folder."""
        with self.door.admission.enter() as ticket:
            body, _ = await read_body(scope, receive, ticket, self.door.limits)
        try:
            said = msgspec.json.decode(body or b"null", type=_LoadRequest | None)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise bad_request(f"The body of a load cannot be read ({error}). Send none, or {{}}.") from None
        named = [name for name, value in ((said and said.parameters) or {}).items() if value is not None]
        if named:
            names = ", ".join(map(repr, named[:4]))
            raise bad_request(
                f"Cannot load with the parameters {names[:120]}: the bundle's own folder is loaded. Send none."
            )


class _LoadRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say about a load."""

    parameters: dict[str, Any] | None = None


def _described(door: InferenceApp) -> dict[str, Any]:
    signatures = {name: model.signature for name, model in door.models.by_name.items()}
    return openapi(signatures, __version__, door.token is not None)


async def _page(_: Request) -> Response:
    page = resources.files("ripieno.server").joinpath("page.html").read_bytes()
    headers = {"content-security-policy": POLICY, "x-content-type-options": "nosniff"}
    return Response(page, media_type="text/html", headers=headers)


def overview(door: InferenceApp) -> dict[str, Any]:
    """`GET /overview`: what `ripieno top` shows: per model counts and quantiles, per bundle lanes and members."""
    models = {
        name: {
            "requests": model.stats.requests,
            "samples": round(model.stats.samples.total),
            "failures": model.stats.failures.total(),
            "partial": model.stats.partial,
            "p50": model.stats.seconds.quantile(0.5),
            "p99": model.stats.seconds.quantile(0.99),
        }
        for name, model in door.models.by_name.items()
    }
    bundles = {
        name: {
            "ensemble": line.engine.bundle.ensemble.name,
            "ready": line.engine.ready,
            "waiting": line.engine.waiting,
            "engine": msgspec.to_builtins(line.engine.stats()),
        }
        for name, line in door.models.engines.items()
    }
    admission = door.admission
    refused = {str(status): number for status, number in sorted(admission.refused.items())}
    flight = {"requests": admission.requests, "bytes": admission.held, "refused": refused}
    return {"version": __version__, "ready": door.ready(), "flight": flight, "models": models, "bundles": bundles}
