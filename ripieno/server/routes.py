"""Routes of the HTTP server, and the protocol's documents."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ripieno import __version__
from ripieno.data.prediction_inputs import accepts_images
from ripieno.data_kinds import noun_of
from ripieno.server import signature
from ripieno.server.body import read_body
from ripieno.server.event_loop import run_in_worker
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.models import Model
from ripieno.server.oip_decode import check_json
from ripieno.server.openapi import openapi
from ripieno.server.signature import VERSION
from ripieno.types import Input

if TYPE_CHECKING:
    from ripieno.server.app import InferenceApp

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'"
)
"""Content security policy of the page: it loads nothing, and shows only uploaded pictures."""
OTHER_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>ripieno</title>
<h1>ripieno</h1>
<p>{}</p>
</html>
"""
"""The page of a server of other samples than pictures."""


class _Raw:
    """An ASGI endpoint for a route: Starlette passes the ASGI arguments to endpoints that are not functions."""

    def __init__(self, answer: Callable[[Scope, Receive, Send], Any]) -> None:
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.answer(scope, receive, send)


def routes(app: InferenceApp) -> list[Route]:
    """Return the routes of `app`."""
    models = app.models

    def ready(request: Request) -> Any:
        path = request.path_params
        up = app.is_ready(path["model"], path.get("version", VERSION)) if "model" in path else app.ready()
        if not up:
            raise HttpError(503, "Not ready: the server is stopping, or a worker is not running.", 1)
        return {"ready": True}

    def of_model(build: Callable[[Model], Any]) -> Callable[[Request], Any]:
        def document(request: Request) -> Any:
            return build(models.find(request.path_params["model"], request.path_params.get("version", VERSION)))

        return document

    per_model = []
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        per_model += [
            Route(f"{model}/labels", _Raw(functools.partial(_labels, app)), methods=["POST"]),
            Route(f"{model}/infer", _Raw(app.infer), methods=["POST"]),
            Route(f"{model}/images", _Raw(app.pictures), methods=["POST"]),
            Route(f"{model}/rows", _Raw(app.rows), methods=["POST"]),
            _json(f"{model}/ready", ready),
            _json(f"{model}/config", of_model(lambda m: signature.model_config(m.signature))),
            _json(f"{model}/drift", of_model(_drift)),
            _json(f"{model}/stats", of_model(lambda m: {"model_stats": [m.statistics()]})),
            _json(model, of_model(lambda m: signature.model_metadata(m.signature))),
        ]
    return [
        _json("/v2/models/stats", lambda _: {"model_stats": [m.statistics() for m in models.by_name.values()]}),
        *per_model,
        _json("/v2/health/live", lambda _: {"live": True}),
        _json("/v2/health/ready", ready),
        _json("/v2", lambda _: signature.server_metadata(__version__)),
        _json("/v2/repository/index", lambda _: signature.repository_index(models.readiness()), "POST"),
        Route("/v2/repository/models/{model}/load", _Raw(functools.partial(_load, app)), methods=["POST"]),
        Route("/predict", _Raw(app.predict), methods=["POST"]),
        Route("/metrics", _Raw(app.show_metrics), methods=["GET"]),
        _json(
            "/openapi.json",
            lambda _: openapi([m.signature for m in models.by_name.values()], __version__, app.token is not None),
        ),
        _json("/overview", lambda _: overview(app)),
        Route("/", _page(app), methods=["GET"]),
    ]


async def _labels(app: InferenceApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Handle `POST /v2/models/M/labels`: take labels of answered requests. Raises HttpError as `LabelStore.add`."""
    path = scope["path_params"]
    model = app.models.find(path["model"], path.get("version", VERSION))
    if (labels := model.labels) is None:
        raise _not_watched(model)
    with app.admission.enter() as permit:
        body, header_length = await read_body(scope, receive, permit, app.limits)
        check_json(len(body), header_length, app.limits.json)
    document = await run_in_worker(len(body) << 4, labels.add, body)
    await Response(orjson.dumps(document), media_type="application/json")(scope, receive, send)


def _drift(model: Model) -> dict[str, Any]:
    """Return the document of `GET /v2/models/M/drift`. Raises HttpError (404) where requests are not watched."""
    if model.watcher is None or model.labels is None:
        raise _not_watched(model)
    return {**model.watcher.document(), "live": model.labels.live()}


def _not_watched(model: Model) -> HttpError:
    """Return the error that requests to a model are not watched, and why."""
    if model.member is not None and model.engine.watcher is not None:
        return HttpError(
            404, f"Not watched: {model.signature.name} is a single member. Ask for {model.engine.watcher.name}."
        )
    return HttpError(404, "Not watched: the server does not watch for drift. Start it with --watch (watch=True).")


def _json(path: str, build: Callable[[Request], Any], method: str = "GET") -> Route:
    """Return a route to the JSON document that `build` returns."""

    async def answer(request: Request) -> Response:
        return Response(orjson.dumps(build(request)), media_type="application/json")

    return Route(path, answer, methods=[method])


async def _load(app: InferenceApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Handle `POST /v2/repository/models/M/load`: reload a bundle from its folder."""
    name = scope["path_params"]["model"]
    if not app.reload:
        raise HttpError(403, "Model reload over HTTP is disabled. Start the server with reload=True.")
    if name not in app.models.engines:
        known = ", ".join(app.models.engines)
        raise HttpError(404, f"Not found: bundle {name[:80]!r}. Available bundles: {known}.")
    with app.admission.enter() as permit:
        body, header_length = await read_body(scope, receive, permit, app.limits)
        check_json(len(body), header_length, app.limits.json)
    try:
        request = msgspec.json.decode(body or b"null", type=_LoadRequest | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"Cannot parse the body of the load request ({error}). Send none, or {{}}.") from None
    # Triton's parameters override the configuration or the files
    parameters = (request and request.parameters) or {}
    if unsupported := ", ".join(repr(key) for key, value in parameters.items() if value is not None):
        raise bad_request(
            f"Unsupported load parameters {unsupported[:120]}: the bundle is loaded from its folder. Send none."
        )
    if not await app.repository.reload(name):
        raise HttpError(500, f"Reload of {name} failed; still serving the previous version. See the server's log.")
    await Response(b"{}", media_type="application/json")(scope, receive, send)


class _LoadRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a load request."""

    parameters: dict[str, Any] | None = None


def _page(app: InferenceApp) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        taken = app.models.first.signature.input
        pictures = resources.files("ripieno.server").joinpath("page.html")
        page = pictures.read_bytes() if accepts_images(taken) else OTHER_PAGE.format(_how_to_send(taken)).encode()
        headers = {"content-security-policy": POLICY, "x-content-type-options": "nosniff"}
        return Response(page, media_type="text/html", headers=headers)

    return answer


def _how_to_send(taken: Input) -> str:
    """Return how samples are sent that are not pictures."""
    if taken.columns:
        return (
            "This server predicts rows of a table. Send them to /predict as JSON objects, with a value for each column."
        )
    return f"This server predicts {noun_of(taken)} that are sent as tensors, by the Open Inference Protocol."


def overview(app: InferenceApp) -> dict[str, Any]:
    """Return the data of `GET /overview`, for `ripieno top`: counts and quantiles per model, workers and members per
    bundle."""
    models = {
        name: {
            "requests": model.stats.requests,
            "samples": round(model.stats.samples.total),
            "failures": model.stats.failures.total(),
            "partial": model.stats.partial,
            "p50": model.stats.seconds.quantile(0.5),
            "p99": model.stats.seconds.quantile(0.99),
            **({"drift": model.watcher.summary()} if model.watcher is not None else {}),
        }
        for name, model in app.models.by_name.items()
    }
    bundles = {
        name: {
            "ensemble": served.engine.bundle.ensemble.name,
            "ready": served.engine.ready,
            "waiting": served.engine.waiting,
            "engine": msgspec.to_builtins(served.engine.stats()),
        }
        for name, served in app.models.engines.items()
    }
    admission = app.admission
    refused = {str(status): number for status, number in sorted(admission.refused.items())}
    flight = {"requests": admission.requests, "bytes": admission.held, "refused": refused}
    return {"version": __version__, "ready": app.ready(), "flight": flight, "models": models, "bundles": bundles}
