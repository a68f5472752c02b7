"""The door: an HTTP server in front of the ensemble engine, speaking the Open Inference Protocol v2.

    serve("bundle", port=8000)               blocks until SIGTERM, drains, returns
    with start("bundle") as server:          the same in a thread of this process
        probabilities = infer(server.url, images)

Names are looked up on first use: a server's libraries come with the extra `serve`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ripieno.errors import need

if TYPE_CHECKING:
    from ripieno.server.app import build_app as build_app
    from ripieno.server.client import Client as Client
    from ripieno.server.client import infer as infer
    from ripieno.server.fleet.deploy import deploy as deploy
    from ripieno.server.fleet.deploy import fleet as fleet
    from ripieno.server.limits import Limits as Limits
    from ripieno.server.run import Running as Running
    from ripieno.server.run import serve as serve
    from ripieno.server.run import start as start

_HOMES = {
    "build_app": "app",
    "Client": "client",
    "infer": "client",
    "deploy": "fleet.deploy",
    "fleet": "fleet.deploy",
    "Limits": "limits",
    "Running": "run",
    "serve": "run",
    "start": "run",
}
_SERVER = ("orjson", "starlette", "uvicorn", "prometheus_client", "python_multipart")
_NEEDS = {"app": _SERVER, "run": _SERVER, "fleet.deploy": (*_SERVER, "ray"), "client": ("orjson", "httpx")}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import on first use; a missing extra is one line that says how to install it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ripieno.server' has no attribute {name!r}")
    for module in _NEEDS.get(_HOMES[name], ()):
        need(module)
    return getattr(importlib.import_module(f"ripieno.server.{_HOMES[name]}"), name)
