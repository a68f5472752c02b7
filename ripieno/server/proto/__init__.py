"""Message classes of the protocol for gRPC, created from `oip.desc`, the compiled form of `oip.proto`.

They have a separate descriptor pool, so that a client library can register the same names in the same process. There
is no generated code, which would be tied to one version of protobuf.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"


def _pool() -> Any:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(resources.files(__name__).joinpath("oip.desc").read_bytes())
    for file in files.file:
        pool.Add(file)
    return pool


POOL = _pool()
"""Pool of the protocol's descriptors."""


def message(name: str) -> Any:
    """Return the class of the message `inference.<name>`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


def methods() -> dict[str, tuple[Any, Any]]:
    """Return the service's methods with the classes of their requests and responses."""
    service = POOL.FindServiceByName(SERVICE)
    return {
        method.name: (
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
        )
        for method in service.methods
    }
