"""The services that gRPC's own tools ask: health (`grpc.health.v1`) and reflection, beside the inference service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from ripieno.server.proto import SERVICE, pool
from ripieno.server.refusal import RefusedError

if TYPE_CHECKING:
    from ripieno.server.app import Door

LOOK = 0.1
"""Seconds between two looks at the state that a client watches."""
HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Both have the same messages."""


def services(door: Door, name_of: Callable[[Any], str], check_token: Callable[[Any], None]) -> tuple[Any, ...]:
    """Handlers of both services. Health needs no token, as every probe; `check_token` raises RefusedError (401).

    `name_of` gives a call its id.
    """
    import grpc
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2
    from grpc_reflection.v1alpha.reflection import aio

    states = health_pb2.HealthCheckResponse.ServingStatus

    def state_of(service: str) -> int:
        """Return the state of the server, or of one model by its name."""
        try:
            up = door.ready() if service in ("", SERVICE) else door.is_ready(service)
        except RefusedError:
            return int(states.SERVICE_UNKNOWN)
        return int(states.SERVING if up else states.NOT_SERVING)

    async def check(request: Any, context: Any) -> Any:
        name_of(context)
        state = state_of(request.service)
        if state == states.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.service[:80]!r}")
        return health_pb2.HealthCheckResponse(status=state)

    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        name_of(context)
        before, last = None, False
        while not last:
            last = door.draining  # looked at before the state is: that of the end is told, too
            if (state := state_of(request.service)) != before:
                before = state
                yield health_pb2.HealthCheckResponse(status=state)
            await asyncio.sleep(0 if last else LOOK)

    servicer = aio.ReflectionServicer((SERVICE, HEALTH, *REFLECTION), _Pools(pool()))

    async def reflect(requests: Any, context: Any) -> AsyncIterator[Any]:
        name_of(context)
        try:
            check_token(context)
        except RefusedError as refusal:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(refusal))
        async for answer in servicer.ServerReflectionInfo(requests, context):
            yield answer

    asked, answered = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
    health = {
        "Check": grpc.unary_unary_rpc_method_handler(check, asked, answered),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, asked, answered),
    }
    reflection = {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            reflect,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    return (
        grpc.method_handlers_generic_handler(HEALTH, health),
        *(grpc.method_handlers_generic_handler(version, reflection) for version in REFLECTION),
    )


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
