"""`ripieno deploy`: a bundle on all nodes of a Ray cluster, served at one address by the Open Inference Protocol."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripieno.library.bundle import read_bundle
from ripieno.server.limits import Limits
from ripieno.server.replicas.cluster import Cluster, joined
from ripieno.server.replicas.router import ReplicaRouter
from ripieno.server.run import serve
from ripieno.server.signals import signal_handlers
from ripieno.types import Allocation

SECONDS = 600.0
"""Within which some node must answer."""


@dataclass(frozen=True)
class NodeDeployment:
    """A node of a deployment: the `allocation` it answers by, or why it cannot."""

    node: str
    allocation: Allocation | None
    refusal: str = ""


@contextlib.contextmanager
def open_router(
    bundle: str | Path,
    address: str = "auto",
    *,
    isolation: str = "auto",
    trusted: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
) -> Iterator[ReplicaRouter]:
    """A bundle's engines on all nodes of the Ray cluster at `address`, ready; ended with the block.

    Every node fetches the bundle, and places its members on its own devices. Nodes that join later are taken in, those
    that die are left out. Raises MissingExtraError without Ray, AllocationError when the cluster cannot be reached,
    LibraryError when `bundle` is none, EngineError when no node can run it.
    """
    read = read_bundle(bundle)
    with joined(address) as ray:
        cluster = Cluster(ray, Path(bundle), isolation, trusted)
        made = ReplicaRouter(read, cluster)
        try:
            made.wait(SECONDS, lambda up, of: progress("deploying to the nodes", up, of))
            yield made
        finally:
            made.close()
            cluster.close()


def deployments(fleet: ReplicaRouter) -> list[NodeDeployment]:
    """What each node came to."""
    up = [NodeDeployment(n.name, n.status.allocation if n.status else None) for n in fleet.nodes.values()]
    return up + [NodeDeployment(name, None, why) for name, why in fleet.refused.values()]


def deploy(
    bundle: str | Path,
    address: str = "auto",
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    isolation: str = "auto",
    limits: Limits | None = None,
    grpc_port: int | None = None,
    token: str | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    traces: Any = None,
    trusted: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
    deployed: Callable[[list[NodeDeployment]], object] = lambda _places: None,
    ready: Callable[[str], None] | None = None,
    grpc_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve `bundle` by all nodes of a Ray cluster until SIGTERM or SIGINT; then drain, end the replicas, return.

    The door is that of `serve`, on this machine; see it, and `fleet`, for the arguments and for what is raised.
    `deployed` is told what each node came to, before `ready`.
    """
    # SIGTERM while nodes are still being started is Ctrl-C: what was started is ended, too
    ended = signal_handlers({signal.SIGTERM: _interrupt})
    with ended, open_router(bundle, address, isolation=isolation, trusted=trusted, progress=progress) as made:
        deployed(deployments(made))
        serve(
            made,
            host,
            port,
            limits=limits,
            grpc_port=grpc_port,
            token=token,
            certificate=certificate,
            key=key,
            traces=traces,
            ready=ready,
            grpc_ready=grpc_ready,
        )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
