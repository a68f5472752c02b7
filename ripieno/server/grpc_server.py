"""The door for gRPC: the same protocol, models, limits and token as HTTP, in the same event loop."""

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
from ripieno.server.auth import is_authorized
from ripieno.server.grpc_body import MessageReader
from ripieno.server.grpc_services import abort, services
from ripieno.server.http_errors import HttpError
from ripieno.server.limits import CROSSING, taking_seconds
from ripieno.server.offload import run_in_worker
from ripieno.server.oip_encode import check_size
from ripieno.server.proto import SERVICE, message, methods
from ripieno.server.tracing import grpc_span

if TYPE_CHECKING:
    from ripieno.server.app import InferenceApp

log = logging.getLogger("ripieno.server")

INFER = "ModelInfer"
LOOKAHEAD = 1 << 16
"""Bytes of a message that may come before it is read."""
LOOK = 0.02
"""Seconds between two looks at whether the calls of a stopping server are over."""
PROBES = ("ServerLive", "ServerReady")
"""What needs no token."""


class GrpcServer:
    """A gRPC server in front of the models of `door`."""

    def __init__(self, door: InferenceApp) -> None:
        self.door = door
        self.grpc = require("grpc")
        self.address = ""
        self.reader = MessageReader(door.admission)
        self._open = contextlib.ExitStack()
        self._calls, self._last, self._closed = 0, 0.0, math.inf
        """calls under way, when the last of them ended, and from when on new ones are refused"""
        limits = door.limits
        self.server = self.grpc.aio.server(
            maximum_concurrent_rpcs=limits.connections,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", limits.body),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.headers),
                # windows that grow with a client's speed would take in what nobody has read
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", LOOKAHEAD),
                ("grpc.max_allowed_incoming_connections", limits.connections),
                ("grpc.server_handshake_timeout_ms", int(1000 * limits.header_timeout)),
                # a client that is gone without a word is found out by an unanswered ping
                ("grpc.keepalive_time_ms", int(1000 * limits.keep_alive)),
                ("grpc.keepalive_timeout_ms", int(1000 * limits.header_timeout)),
            ],
        )
        handlers = {
            # a stream of requests is the same on the wire, and only its message may be read late, or not at all
            name: self.grpc.stream_unary_rpc_method_handler(
                self._checked(name, asked, getattr(self, f"_{name}")),
                response_serializer=lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString(),
            )
            for name, (asked, _) in methods().items()
        }
        own = self.grpc.method_handlers_generic_handler(SERVICE, handlers)
        shared = services(door, self._name_of, self._check_token, self.reader)
        self.server.add_generic_rpc_handlers((own, *shared, self._unknown()))

    @classmethod
    async def open(cls, door: InferenceApp, host: str, port: int, tls: TlsConfig | None) -> GrpcServer:
        """A door that answers at `address`. Raises RipienoError when the port cannot be had."""
        made = cls(door)
        with bind_socket(
            host, port
        ) as listener:  # says in words what gRPC only fails at; the port is free again after it
            host, number = listener.getsockname()[:2]  # by a name gRPC would listen at all that it stands for
        address = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
        made._open.enter_context(only_ipv4(host, number))
        try:
            if tls is None:
                made.server.add_insecure_port(address)
            else:
                made.server.add_secure_port(address, made._credentials(tls))
        except RuntimeError as error:
            raise cannot_bind(host, number, None) from error
        await made.server.start()
        made.address = address
        log.info("serving gRPC at %s", address)
        return made

    def _credentials(self, tls: TlsConfig) -> Any:
        """Credentials that show the certificate as it was read last; gRPC asks at every handshake."""

        def configuration() -> Any:
            return self.grpc.ssl_server_certificate_configuration([tls.pair])

        shown = tls.pair

        def renewed() -> Any:
            nonlocal shown
            if tls.pair == shown:
                return None
            shown = tls.pair
            return configuration()

        return self.grpc.dynamic_ssl_server_credentials(configuration(), renewed)

    async def close(self, grace: float) -> None:
        """Take no more calls, finish those under way within `grace` seconds.

        gRPC drops calls that have come but not begun when it stops, and resets a connection when the last call on it is
        over, whatever part of the answer is still on its way: it is stopped some time after the last call.
        """
        now = self._last = time.monotonic()
        self._closed, until = now + CROSSING, now + grace
        while (self._calls or now < self._last + CROSSING) and now < until:
            await asyncio.sleep(LOOK)
            now = time.monotonic()
        await self.server.stop(max(0.0, until - now))
        self._open.close()

    def _checked(
        self, name: str, kind: Any, answer: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        """`answer` for a message of `kind`: its token checked before it is read, its refusals as statuses."""

        async def checked(_: Any, context: Any) -> Any:
            if time.monotonic() > self._closed:
                self._name_of(context)
                return await context.abort(self.grpc.StatusCode.UNAVAILABLE, "The server is stopping: call another.")
            self._calls += 1
            try:
                return await answered(context)
            finally:
                self._calls -= 1
                self._last = time.monotonic()

        async def answered(context: Any) -> Any:
            request = self._name_of(context)
            try:
                if name in PROBES:  # nothing is in their messages
                    return await answer(None, context)
                self._check_token(context)
                if name == INFER:
                    return await answer(request, context)
                with self.door.admission.enter() as ticket:
                    raw = await self.reader.read(context, ticket)
                    return await answer(grpc_codec.parse_message(raw, kind, self.door.limits.json), context)
            except HttpError as error:
                refusal = error.with_traceback(None)  # its frames hold the message, and this one the refusal
            except Exception as error:
                log.exception("a mistake of ours", extra={"request": request})
                refusal = HttpError(500, f"a mistake of the server: {type(error).__name__} (request {request})")
            self.door.admission.refused[refusal.status] += 1
            level = logging.WARNING if refusal.status >= 500 else logging.INFO
            log.log(level, "%s: %s", name, refusal, extra={"request": request, "status": refusal.status})
            return await abort(context, refusal)

        return checked

    def _name_of(self, context: Any) -> str:
        """The id of a call, the client's if its metadata has one; it goes into the call's trailing metadata."""
        said = context.invocation_metadata() or ()
        name = self.door.name_of((str(k).encode(), v.encode()) for k, v in said if isinstance(v, str))
        context.set_trailing_metadata((("x-request-id", name),))
        return name

    def _unknown(self) -> Any:
        """A handler of every method that no other handler has."""

        def service(details: Any) -> Any:
            async def refuse(_: Any, context: Any) -> None:
                self._name_of(context)
                await context.abort(self.grpc.StatusCode.UNIMPLEMENTED, f"There is no method {details.method[:120]!r}.")

            return self.grpc.stream_unary_rpc_method_handler(refuse)

        return type("Unknown", (self.grpc.GenericRpcHandler,), {"service": staticmethod(service)})()

    def _check_token(self, context: Any) -> None:
        said = dict(context.invocation_metadata() or ()).get("authorization", "")
        if self.door.token is not None and not is_authorized(str(said).encode(), self.door.token):
            raise HttpError(401, "the call must carry the metadata 'authorization: Bearer TOKEN'")

    async def _ModelInfer(self, request_id: str, context: Any) -> Any:  # noqa: N802
        began = time.perf_counter()
        left = context.time_remaining()
        timeout = self.door.limits.timeout if left is None else min(self.door.limits.timeout, max(0.001, left))
        span = grpc_span(self.door.traces, INFER, context.invocation_metadata())
        with span, contextlib.ExitStack() as held:
            ticket = held.enter_context(self.door.admission.enter())
            raw = await self.reader.read(context, ticket)
            asked, contents = await run_in_worker(len(raw), grpc_codec.parse_inference, raw, self.door.limits.json)
            with self.door.models.acquire(asked.model_name, asked.model_version) as model:
                request = await run_in_worker(len(raw), grpc_codec.read_request, asked, contents, model.signature)
                size = check_size(request, model.signature, self.door.limits.reply)
                ticket.expect(size)
                answer = await model.answer(request, timeout)
                response = await run_in_worker(size, grpc_codec.write_response, request, answer, model.signature)
            if len(response) > LOOKAHEAD:
                ticket.settle(len(response))
                _release_when_taken(context, len(response), held.pop_all())
        self.door.note_answer(request_id, model.signature.name, len(request.images), began)
        return response

    async def _ServerLive(self, asked: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return message("ServerLiveResponse")(live=True)

    async def _ServerReady(self, asked: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return message("ServerReadyResponse")(ready=self.door.ready())

    async def _ModelReady(self, asked: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return message("ModelReadyResponse")(ready=self.door.is_ready(asked.name, asked.version))

    async def _ServerMetadata(self, asked: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return message("ServerMetadataResponse")(**signature.server_metadata(__version__))

    async def _ModelMetadata(self, asked: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return grpc_codec.metadata(self.door.models.find(asked.name, asked.version).signature)

    async def _ModelConfig(self, asked: Any, context: Any) -> Any:  # noqa: ARG002, N802
        return grpc_codec.config(self.door.models.find(asked.name, asked.version).signature)

    async def _ModelStatistics(self, asked: Any, context: Any) -> Any:  # noqa: ARG002, N802
        models = self.door.models
        found = [models.find(asked.name, asked.version)] if asked.name else list(models.by_name.values())
        return grpc_codec.statistics([m.statistics() for m in found])

    async def _RepositoryIndex(self, asked: Any, context: Any) -> Any:  # noqa: ARG002, N802
        index = signature.repository_index(self.door.models.readiness())
        return grpc_codec.IndexResponse(models=[m for m in index if not asked.ready or m["state"] == "READY"])


def _release_when_taken(context: Any, size: int, held: contextlib.ExitStack) -> None:
    """Close `held` when the client has taken its answer of `size` bytes; one that takes too long is cut."""
    task = asyncio.current_task()
    assert task is not None
    late = asyncio.get_running_loop().call_later(taking_seconds(size), task.cancel)

    def release(_: Any) -> None:
        late.cancel()
        held.close()

    context.add_done_callback(release)
