"""Standard gRPC services for tools: health (`grpc.health.v1`) and reflection."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from ripieno.server.grpc_body import MessageReader
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.limits import Admission, Permit
from ripieno.server.proto import POOL, SERVICE

if TYPE_CHECKING:
    from ripieno.server.app import InferenceApp

LOOK = 0.1
"""Seconds between two checks of the state that a client watches."""
STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    503: "RESOURCE_EXHAUSTED",
    504: "DEADLINE_EXCEEDED",
}
"""gRPC status for each HTTP status; INTERNAL for all others."""
PATIENCE = 0.25
"""Seconds that the sender of a health check may take while other calls wait."""
LONGEST = 1 << 16
"""Maximum bytes of a message of these services, which contains one name."""
HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Names of the reflection service; both versions have the same messages."""


def services(
    app: InferenceApp, name_of: Callable[[Any], str], check_token: Callable[[Any], None], reader: MessageReader
) -> tuple[Any, ...]:
    """Return the handlers of both services. Health checks need no token; `check_token` raises HttpError (401).

    `name_of` assigns an id to a call. Messages are read one by one. Health checks have a separate reader, so that
    probes succeed when requests hold all memory; `reader` reads the rest.
    """
    import grpc
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2
    from grpc_reflection.v1alpha.reflection import aio

    alone = Admission(dataclasses.replace(app.limits, held=0))
    probes = MessageReader(alone, free=1, slow=PATIENCE)
    states = health_pb2.HealthCheckResponse.ServingStatus

    def state_of(service: str) -> int:
        """Return the state of the server, or of one model by its name."""
        try:
            up = app.ready() if service in ("", SERVICE) else app.is_ready(service)
        except HttpError:
            return int(states.SERVICE_UNKNOWN)
        return int(states.SERVING if up else states.NOT_SERVING)

    async def read_service(context: Any) -> str:
        """Return the service name in a health check; abort an invalid call."""
        name_of(context)
        permit = Permit(alone)
        try:
            return str(_parsed(await probes.read(context, permit), health_pb2.HealthCheckRequest).service)
        except HttpError as refusal:
            failed = refusal.with_traceback(None)  # its frames reference the message
        finally:
            permit.settle(0)
        await abort(context, failed)
        raise failed

    async def check(_: Any, context: Any) -> Any:
        service = await read_service(context)
        state = state_of(service)
        if state == states.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: model {service[:80]!r}.")
        return health_pb2.HealthCheckResponse(status=state)

    async def watch(_: Any, context: Any) -> AsyncIterator[Any]:
        service = await read_service(context)
        before, last = None, False
        while not last:
            last = app.draining  # read before the state, so that the final state is sent too
            if (state := state_of(service)) != before:
                before = state
                yield health_pb2.HealthCheckResponse(status=state)
            await asyncio.sleep(0 if last else LOOK)

    servicer = aio.ReflectionServicer((SERVICE, HEALTH, *REFLECTION), _Pools(POOL))

    async def requests(context: Any) -> AsyncIterator[Any]:
        with app.admission.enter() as permit:
            while (raw := await reader.next(context, permit)) is not None:
                yield _parsed(raw, reflection_pb2.ServerReflectionRequest)

    async def reflect(_: Any, context: Any) -> AsyncIterator[Any]:
        name_of(context)
        try:
            check_token(context)
            async for answer in servicer.ServerReflectionInfo(requests(context), context):
                yield answer
        except HttpError as refusal:
            await abort(context, refusal)

    # declared as streams: the same on the wire, but messages are read only on request
    serialize = health_pb2.HealthCheckResponse.SerializeToString
    health = {
        "Check": grpc.stream_unary_rpc_method_handler(check, response_serializer=serialize),
        "Watch": grpc.stream_stream_rpc_method_handler(watch, response_serializer=serialize),
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
    """Abort a call with the status and the message of an error."""
    import grpc

    await context.abort(grpc.StatusCode[STATUS.get(refusal.status, "INTERNAL")], str(refusal))


def _parsed(raw: bytes, kind: Any) -> Any:
    """Parse `raw` as a message of `kind`. Raises HttpError (400) when it is invalid or too long."""
    if len(raw) > LONGEST:
        raise bad_request(f"The message has {len(raw)} bytes (limit {LONGEST}). Send one name.")
    try:
        return kind.FromString(raw)
    except Exception:  # protobuf's DecodeError; its module depends on the implementation
        raise bad_request(f"The message is not a valid {kind.DESCRIPTOR.name}.") from None


class _Pools:
    """Descriptor pool that joins the pool of the inference service with gRPC's default pool."""

    def __init__(self, own: Any) -> None:
        from google.protobuf import descriptor_pool

        self._pools = (own, descriptor_pool.Default())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def find(*arguments: Any) -> Any:
            for descriptors in self._pools:
                try:
                    return getattr(descriptors, name)(*arguments)
                except KeyError:
                    continue
            raise KeyError(arguments)

        return find
