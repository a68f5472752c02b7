"""The services that gRPC's own tools ask: health (`grpc.health.v1`) and reflection, beside the inference service."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from ripieno.server.grpc_body import MessageReader
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.limits import Admission, Permit
from ripieno.server.proto import SERVICE, pool

if TYPE_CHECKING:
    from ripieno.server.app import InferenceApp

LOOK = 0.1
"""Seconds between two looks at the state that a client watches."""
STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    503: "RESOURCE_EXHAUSTED",
    504: "DEADLINE_EXCEEDED",
}
"""HTTP's status in gRPC's words; INTERNAL for others."""
PATIENCE = 0.25
"""Seconds that the sender of a question about health may take while others wait."""
LONGEST = 1 << 16
"""Bytes of a message of these services; each holds a name."""
HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Both have the same messages."""


def services(
    door: InferenceApp, name_of: Callable[[Any], str], check_token: Callable[[Any], None], reader: MessageReader
) -> tuple[Any, ...]:
    """Handlers of both services. Health needs no token, as every probe; `check_token` raises RefusedError (401).

    `name_of` gives a call its id. Messages are read one by one: those about health by a reader of their own, so that
    probes are answered when requests hold all there is; the others by `reader`.
    """
    import grpc
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2
    from grpc_reflection.v1alpha.reflection import aio

    alone = Admission(dataclasses.replace(door.limits, held=0))
    probes = MessageReader(alone, free=1, slow=PATIENCE)
    states = health_pb2.HealthCheckResponse.ServingStatus

    def state_of(service: str) -> int:
        """Return the state of the server, or of one model by its name."""
        try:
            up = door.ready() if service in ("", SERVICE) else door.is_ready(service)
        except HttpError:
            return int(states.SERVICE_UNKNOWN)
        return int(states.SERVING if up else states.NOT_SERVING)

    async def asked_of(context: Any) -> str:
        """Return the service that a question about health names; end a call that asks none."""
        name_of(context)
        ticket = Permit(alone)
        try:
            return str(_parsed(await probes.read(context, ticket), health_pb2.HealthCheckRequest).service)
        except HttpError as refusal:
            failed = refusal.with_traceback(None)  # its frames hold the message
        finally:
            ticket.settle(0)
        await abort(context, failed)
        raise failed

    async def check(_: Any, context: Any) -> Any:
        service = await asked_of(context)
        state = state_of(service)
        if state == states.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {service[:80]!r}")
        return health_pb2.HealthCheckResponse(status=state)

    async def watch(_: Any, context: Any) -> AsyncIterator[Any]:
        service = await asked_of(context)
        before, last = None, False
        while not last:
            last = door.draining  # looked at before the state is: that of the end is told, too
            if (state := state_of(service)) != before:
                before = state
                yield health_pb2.HealthCheckResponse(status=state)
            await asyncio.sleep(0 if last else LOOK)

    servicer = aio.ReflectionServicer((SERVICE, HEALTH, *REFLECTION), _Pools(pool()))

    async def requests(context: Any) -> AsyncIterator[Any]:
        with door.admission.enter() as ticket:
            while (raw := await reader.next(context, ticket)) is not None:
                yield _parsed(raw, reflection_pb2.ServerReflectionRequest)

    async def reflect(_: Any, context: Any) -> AsyncIterator[Any]:
        name_of(context)
        try:
            check_token(context)
            async for answer in servicer.ServerReflectionInfo(requests(context), context):
                yield answer
        except HttpError as refusal:
            await abort(context, refusal)

    # a stream of requests is the same on the wire as one, and its messages are read when this asks for them
    said = health_pb2.HealthCheckResponse.SerializeToString
    health = {
        "Check": grpc.stream_unary_rpc_method_handler(check, response_serializer=said),
        "Watch": grpc.stream_stream_rpc_method_handler(watch, response_serializer=said),
    }
    reflection = {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            reflect, response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString
        )
    }
    return (
        grpc.method_handlers_generic_handler(HEALTH, health),
        *(grpc.method_handlers_generic_handler(version, reflection) for version in REFLECTION),
    )


async def abort(context: Any, refusal: HttpError) -> None:
    """End a call with the status and the words of a refusal."""
    import grpc

    await context.abort(grpc.StatusCode[STATUS.get(refusal.status, "INTERNAL")], str(refusal))


def _parsed(raw: bytes, kind: Any) -> Any:
    """The message of `kind` that `raw` holds. Raises RefusedError (400) when it holds none, or is long."""
    if len(raw) > LONGEST:
        raise bad_request(f"the message has {len(raw)} bytes, at most {LONGEST} are read: send one name")
    try:
        return kind.FromString(raw)
    except Exception:  # protobuf's DecodeError, whose module differs between its implementations
        raise bad_request(f"the bytes are no {kind.DESCRIPTOR.name}") from None


class _Pools:
    """Descriptors of the inference service, whose pool is its own, and of those that came with gRPC."""

    def __init__(self, own: Any) -> None:
        from google.protobuf import descriptor_pool

        self._pools = (own, descriptor_pool.Default())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def find(*words: Any) -> Any:
            for one in self._pools:
                try:
                    return getattr(one, name)(*words)
                except KeyError:
                    continue
            raise KeyError(words)

        return find
