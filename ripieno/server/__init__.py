"""HTTP and gRPC server of the Open Inference Protocol v2 over the ensemble engine.

    serve("bundle", port=8000)               blocks until SIGTERM, drains, returns
    with start_in_thread("bundle") as server:          the same in a thread of this process
        probabilities = infer(server.url, images)

Names are imported on first use, because the server's dependencies come with the extra `serve`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ripieno.deprecation import warn_renamed
from ripieno.errors import require

if TYPE_CHECKING:
    from ripieno.server.app import build_app as build_app
    from ripieno.server.client import Client as Client
    from ripieno.server.client import infer as infer
    from ripieno.server.config import ServerConfig as ServerConfig
    from ripieno.server.limits import Limits as Limits
    from ripieno.server.replicas.deploy import deploy as deploy
    from ripieno.server.replicas.deploy import open_router as open_router
    from ripieno.server.run import ServerHandle as ServerHandle
    from ripieno.server.run import serve as serve
    from ripieno.server.run import start_in_thread as start_in_thread

_HOMES = {
    "build_app": "app",
    "Client": "client",
    "infer": "client",
    "deploy": "replicas.deploy",
    "open_router": "replicas.deploy",
    "Limits": "limits",
    "ServerConfig": "config",
    "ServerHandle": "run",
    "serve": "run",
    "start_in_thread": "run",
}
_RENAMED = {"Running": "ServerHandle", "fleet": "open_router", "start": "start_in_thread"}
_SERVER = ("orjson", "starlette", "uvicorn", "prometheus_client", "python_multipart")
_NEEDS = {"app": _SERVER, "run": _SERVER, "replicas.deploy": (*_SERVER, "ray"), "client": ("orjson", "httpx")}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import `name` on first use. Raises MissingExtraError with the install command when an extra is missing."""
    if name in _RENAMED:
        warn_renamed(f"ripieno.server.{name}", name := _RENAMED[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'ripieno.server' has no attribute {name!r}")
    for module in _NEEDS.get(_HOMES[name], ()):
        require(module)
    return getattr(importlib.import_module(f"ripieno.server.{_HOMES[name]}"), name)
