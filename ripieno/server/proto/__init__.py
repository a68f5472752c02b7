"""The protocol's messages for gRPC, as classes made from `oip.desc`, the compiled form of `oip.proto`.

They live in a pool of their own, so that a client library that registers the same names can be in the same process;
and no generated code is tied to one version of protobuf.
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


_POOL = _pool()


def pool() -> Any:
    """The pool of the protocol's descriptors."""
    return _POOL


def message(name: str) -> Any:
    """The class of the message `inference.<name>`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"inference.{name}"))


def methods() -> dict[str, tuple[Any, Any]]:
    """The service's methods: classes of their requests and responses."""
    service = _POOL.FindServiceByName(SERVICE)
    return {
        method.name: (
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
        )
        for method in service.methods
    }
