"""`ripieno deploy`: a bundle on all nodes of a Ray cluster, served at one address by the Open Inference Protocol."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripieno.config import update
from ripieno.engine.config import EngineConfig
from ripieno.errors import RipienoError
from ripieno.library.bundle import read_bundle
from ripieno.server.config import ServerConfig, server_config
from ripieno.server.replicas.cluster import Cluster, joined
from ripieno.server.replicas.router import ReplicaRouter
from ripieno.server.run import serve, signal_handlers
from ripieno.types import Allocation

SECONDS = 600.0
"""Longest wait until a node is ready."""


@dataclass(frozen=True)
class NodeDeployment:
    """Node of a deployment: its `allocation`, or the reason why it cannot run the bundle."""

    node: str
    allocation: Allocation | None
    refusal: str = ""


@contextlib.contextmanager
def open_router(
    bundle: str | Path,
    address: str = "auto",
    *,
    config: EngineConfig | None = None,
    trusted: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
    **settings: Any,
) -> Iterator[ReplicaRouter]:
    """Start engines of a bundle on all nodes of the Ray cluster at `address`; yield their router; stop them on exit.

    Every node fetches the bundle, and places its members on its own devices. Nodes that join later are added; nodes
    that die are removed. `config` and the keywords in `settings` are those of `Engine`. Raises MissingExtraError
    without Ray, AllocationError when the cluster cannot be reached, LibraryError when `bundle` is not a bundle,
    EngineError when no node can run it.
    """
    engine = update(config or EngineConfig(), settings)
    loaded = read_bundle(bundle)
    with joined(address) as ray:
        cluster = Cluster(ray, Path(bundle), engine, trusted)
        router = ReplicaRouter(loaded, cluster)
        try:
            router.wait(SECONDS, lambda up, of: progress("deploying to the nodes", up, of))
            yield router
        finally:
            router.close()
            cluster.close()


def deployments(router: ReplicaRouter) -> list[NodeDeployment]:
    """Return the state of each node."""
    up = [NodeDeployment(n.name, n.status.allocation if n.status else None) for n in router.nodes.values()]
    return up + [NodeDeployment(name, None, why) for name, why in router.refused.values()]


def deploy(
    bundle: str | Path,
    address: str = "auto",
    host: str | None = None,
    port: int | None = None,
    *,
    config: ServerConfig | None = None,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
    deployed: Callable[[list[NodeDeployment]], object] = lambda _nodes: None,
    ready: Callable[[str], None] | None = None,
    grpc_ready: Callable[[str], None] | None = None,
    **settings: Any,
) -> None:
    """Serve `bundle` on all nodes of a Ray cluster until SIGTERM or SIGINT; then drain, stop the replicas, return.

    The server is that of `serve`, on this machine; see `serve` and `open_router` for the arguments and errors.
    `deployed` is called with the state of each node, before `ready`.
    """
    config = server_config(config, host, port, settings)
    if config.watch:
        raise RipienoError("watch is for serve: replicas on several nodes cannot be watched. Leave it out.")
    # SIGTERM during the start acts as Ctrl-C: the replicas that were started are stopped, too
    interruptible = signal_handlers({signal.SIGTERM: _interrupt})
    replicas = open_router(bundle, address, config=config.engine, trusted=config.trusted, progress=progress)
    with interruptible, replicas as router:
        deployed(deployments(router))
        serve(router, config=config, ready=ready, grpc_ready=grpc_ready)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
