"""gRPC server: the same protocol, models, limits and token as HTTP, in the same event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ripieno import __version__
from ripieno.errors import require
from ripieno.server import grpc_codec, signature
from ripieno.server.address import TlsConfig, bind_socket, cannot_bind, only_ipv4
from ripieno.server.auth import check_token
from ripieno.server.event_loop import run_in_worker
from ripieno.server.grpc_body import MessageReader
from ripieno.server.grpc_services import abort, services
from ripieno.server.http_errors import HttpError
from ripieno.server.limits import CROSSING, taking_seconds
from ripieno.server.oip_encode import check_size
from ripieno.server.proto import SERVICE, message, methods
from ripieno.server.tracing import grpc_span
from ripieno.server.watcher import request_id as current_request

if TYPE_CHECKING:
    from ripieno.server.app import InferenceApp

log = logging.getLogger("ripieno.server")

INFER = "ModelInfer"
LOOKAHEAD = 1 << 16
"""Bytes of a message that may arrive before it is read."""
LOOK = 0.02
"""Seconds between two checks for in-flight calls while the server stops."""
PROBES = ("ServerLive", "ServerReady")
"""Methods that need no token."""


class GrpcServer:
    """A gRPC server for the models of `app`."""

    def __init__(self, app: InferenceApp) -> None:
        self.app = app
        self.grpc = require("grpc")
        self.address = ""
        self.reader = MessageReader(app.admission)
        self._open = contextlib.ExitStack()
        self._calls, self._last, self._closed = 0, 0.0, math.inf
        """in-flight calls, end of the last call, and time after which new calls are refused"""
        limits = app.limits
        self.server = self.grpc.aio.server(
            maximum_concurrent_rpcs=limits.connections,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", limits.body),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.headers),
                # windows that grow with a client's speed would buffer unread messages
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", LOOKAHEAD),
                ("grpc.max_allowed_incoming_connections", limits.connections),
                ("grpc.server_handshake_timeout_ms", int(1000 * limits.header_timeout)),
                # an unanswered ping detects a client that is gone without closing its connection
                ("grpc.keepalive_time_ms", int(1000 * limits.keep_alive)),
                ("grpc.keepalive_timeout_ms", int(1000 * limits.header_timeout)),
            ],
        )
        handlers = {
            # declared as a stream: the same on the wire, but the message can be read later, or not at all
            name: self.grpc.stream_unary_rpc_method_handler(
                self._checked(name, request_type),
                response_serializer=lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString(),
            )
            for name, (request_type, _) in methods().items()
        }
        own = self.grpc.method_handlers_generic_handler(SERVICE, handlers)
        shared = services(app, self._name_of, self._check_token, self.reader)
        self.server.add_generic_rpc_handlers((own, *shared, self._unknown()))

    @classmethod
    async def open(cls, app: InferenceApp, host: str, port: int, tls: TlsConfig | None) -> GrpcServer:
        """Start a server at `host` and `port`. Raises RipienoError when the port cannot be bound."""
        server = cls(app)
        # binding first gives a readable error, where gRPC only fails; the port is free again afterwards
        with bind_socket(host, port) as listener:
            host, number = listener.getsockname()[:2]  # for a name, gRPC would listen on all of its addresses
        address = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
        server._open.enter_context(only_ipv4(host, number))
        try:
            if tls is None:
                server.server.add_insecure_port(address)
            else:
                server.server.add_secure_port(address, server._credentials(tls))
        except RuntimeError as error:
            raise cannot_bind(host, number, None) from error
        await server.server.start()
        server.address = address
        log.info("serving gRPC at %s", address)
        return server

    def _credentials(self, tls: TlsConfig) -> Any:
        """Return credentials with the certificate that was read last; gRPC asks for it at every handshake."""

        def configuration() -> Any:
            return self.grpc.ssl_server_certificate_configuration([tls.pair])

        presented = tls.pair

        def renewed() -> Any:
            nonlocal presented
            if tls.pair == presented:
                return None
            presented = tls.pair
            return configuration()

        return self.grpc.dynamic_ssl_server_credentials(configuration(), renewed)

    async def close(self, grace: float) -> None:
        """Refuse new calls and finish in-flight calls within `grace` seconds.

        When gRPC stops, it drops calls that have arrived but not begun. It also resets a connection after its last
        call, even if part of the response is still in transit. So it is stopped some time after the last call.
        """
        now = self._last = time.monotonic()
        self._closed, until = now + CROSSING, now + grace
        while (self._calls or now < self._last + CROSSING) and now < until:
            await asyncio.sleep(LOOK)
            now = time.monotonic()
        await self.server.stop(max(0.0, until - now))
        self._open.close()

    def _checked(self, name: str, kind: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        """Return the handler of a method with messages of `kind`: check the token first, convert errors to statuses."""

        async def checked(_: Any, context: Any) -> Any:
            if time.monotonic() > self._closed:
                self._name_of(context)
                return await context.abort(self.grpc.StatusCode.UNAVAILABLE, "The server is stopping. Call another.")
            self._calls += 1
            try:
                return await answered(context)
            finally:
                self._calls -= 1
                self._last = time.monotonic()

        async def answered(context: Any) -> Any:
            request = self._name_of(context)
            try:
                if name in PROBES:  # their messages are empty
                    return self._document(name, None)
                self._check_token(context)
                if name == INFER:
                    return await self._infer(request, context)
                with self.app.admission.enter() as permit:
                    raw = await self.reader.read(context, permit)
                    return self._document(name, grpc_codec.parse_message(raw, kind, self.app.limits.json)[0])
            except HttpError as error:
                failure = error.with_traceback(None)  # its frames reference the message, and this frame the error
            except Exception as error:
                log.exception("unhandled exception while serving a request", extra={"request": request})
                failure = HttpError(500, f"Internal server error: {type(error).__name__} (request id {request})")
            self.app.note_error(failure, request, f"{name}: ")
            return await abort(context, failure)

        return checked

    def _name_of(self, context: Any) -> str:
        """Return the id of a call, from its metadata or generated, and set it in the trailing metadata."""
        metadata = context.invocation_metadata() or ()
        name = self.app.name_of((str(k).encode(), v.encode()) for k, v in metadata if isinstance(v, str))
        context.set_trailing_metadata((("x-request-id", name),))
        return name

    def _unknown(self) -> Any:
        """Return a handler for unknown methods."""

        def service(details: Any) -> Any:
            async def refuse(_: Any, context: Any) -> None:
                self._name_of(context)
                await context.abort(self.grpc.StatusCode.UNIMPLEMENTED, f"Unknown method {details.method[:120]!r}.")

            return self.grpc.stream_unary_rpc_method_handler(refuse)

        return type("Unknown", (self.grpc.GenericRpcHandler,), {"service": staticmethod(service)})()

    def _check_token(self, context: Any) -> None:
        value = dict(context.invocation_metadata() or ()).get("authorization", "")
        check_token(str(value).encode(), self.app.token, "call needs the metadata 'authorization: Bearer TOKEN'")

    async def _infer(self, request_id: str, context: Any) -> Any:
        began = time.perf_counter()
        current_request.set(request_id)
        left = context.time_remaining()
        timeout = self.app.limits.timeout if left is None else min(self.app.limits.timeout, max(0.001, left))
        span = grpc_span(self.app.traces, INFER, context.invocation_metadata())
        with span, contextlib.ExitStack() as held:
            permit = held.enter_context(self.app.admission.enter())
            raw = await self.reader.read(context, permit)
            received, contents = await run_in_worker(
                len(raw),
                grpc_codec.parse_message,
                raw,
                grpc_codec.InferRequest,
                self.app.limits.json,
                self.app.models.most_columns,
            )
            with self.app.models.find(received.model_name, received.model_version) as model:
                request = await run_in_worker(len(raw), grpc_codec.read_request, received, contents, model.signature)
                size = check_size(request, model.signature, self.app.limits.reply)
                permit.expect(size)
                answer = await model.answer(request, timeout)
                response = await run_in_worker(size, grpc_codec.write_response, request, answer, model.signature)
            if len(response) > LOOKAHEAD:
                permit.settle(len(response))
                _release_when_read(context, len(response), held.pop_all())
        self.app.note_answer(request_id, model.signature.name, len(request.images), began)
        return response

    def _document(self, name: str, request: Any) -> Any:
        """Return the answer of a method that only reports state."""
        app = self.app
        if name == "ModelConfig":
            return grpc_codec.config(app.models.find(request.name, request.version).signature)
        documents: dict[str, Callable[[], dict[str, Any]]] = {
            "ServerLive": lambda: {"live": True},
            "ServerReady": lambda: {"ready": app.ready()},
            "ModelReady": lambda: {"ready": app.is_ready(request.name, request.version)},
            "ServerMetadata": lambda: signature.server_metadata(__version__),
            "ModelMetadata": lambda: signature.model_metadata(app.models.find(request.name, request.version).signature),
            "ModelStatistics": lambda: {"model_stats": self._statistics(request)},
            "RepositoryIndex": lambda: {"models": self._index(request)},
        }
        return message(f"{name}Response")(**documents[name]())

    def _statistics(self, request: Any) -> list[dict[str, object]]:
        models = self.app.models
        chosen = [models.find(request.name, request.version)] if request.name else list(models.by_name.values())
        return [{k: v for k, v in m.statistics().items() if k != "batch_stats"} for m in chosen]

    def _index(self, request: Any) -> list[dict[str, str]]:
        index = signature.repository_index(self.app.models.readiness())
        return [m for m in index if not request.ready or m["state"] == "READY"]


def _release_when_read(context: Any, size: int, held: contextlib.ExitStack) -> None:
    """Close `held` when the client has read its response of `size` bytes; cancel the call on a timeout."""
    task = asyncio.current_task()
    assert task is not None
    timer = asyncio.get_running_loop().call_later(taking_seconds(size), task.cancel)

    def release(_: Any) -> None:
        timer.cancel()
        held.close()

    context.add_done_callback(release)
