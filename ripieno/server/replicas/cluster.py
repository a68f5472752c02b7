"""Replicas on the nodes of a Ray cluster: a Ray Serve application for each, pinned to its node."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ripieno.cluster.nodes import connected
from ripieno.errors import RipienoError, require
from ripieno.server.replicas.replica import BundleFileServer, Replica

HEALTH = 2.0
"""Seconds between two questions of Ray Serve after a replica's health."""
END_SECONDS = 30.0
"""Longest wait for replicas to end."""


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster at `address` (`auto`: this machine's), with Ray Serve; both are left as found.

    Raises MissingExtraError, AllocationError as `ripieno.cluster.nodes.connected`.
    """
    ray = require("ray")
    if address.startswith("ray://"):
        raise RipienoError(f"{address} is a Ray client's address: deploy from a machine of the cluster, by HOST:PORT")
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")  # read when Serve is imported
    spec = "ray" if address == "auto" else f"ray:{address.removeprefix('ray:')}"
    with connected(ray, spec):
        try:
            from ray import serve
        except ImportError as error:  # Ray without what Serve needs
            raise RipienoError(f"Ray Serve is not installed ({error}): pip install 'ripieno[cluster]'") from error
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        ours = not _serving(ray)
        serve.start(proxy_location="Disabled")  # our door is the only one
        try:
            yield ray
        finally:
            if ours and not _others(serve):
                with suppress(Exception):
                    serve.shutdown()  # type: ignore[no-untyped-call,unused-ignore]


def _serving(ray: Any) -> bool:
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def _others(serve: Any) -> bool:
    try:
        return bool(serve.status().applications)
    except Exception:  # the cluster is gone: nothing is left to be shut down
        return True


class Cluster:
    """The living nodes of a Ray cluster, as the ground of a fleet; `bundle` is the folder they get."""

    def __init__(self, ray: Any, bundle: Path, isolation: str, trusted: Sequence[str] = ()) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._isolation, self._trusted = ray, isolation, tuple(trusted)
        self.name = f"ripieno-{secrets.token_hex(4)}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        shelf = ray.remote(BundleFileServer).options(num_cpus=0, scheduling_strategy=here, max_restarts=0)
        self._shelf = shelf.remote(str(bundle.resolve()))
        ray.get(self._shelf.names.remote(), timeout=60)
        self._resources: dict[str, Mapping[str, float]] = {}

    def nodes(self) -> Mapping[str, str]:
        """Names of the living nodes that offer CPUs or GPUs, by their ids."""
        living = [n for n in self._ray.nodes() if n["Alive"] and _offers(n["Resources"])]
        self._resources.update({n["NodeID"]: n["Resources"] for n in living})
        count = Counter(n["NodeManagerAddress"] for n in living)
        return {n["NodeID"]: _name(n["NodeManagerAddress"], n["NodeID"], count) for n in living}

    def place(self, key: str) -> Any:
        """Begin to run a replica that takes all CPUs and GPUs a node gives to Ray; the handle to it."""
        from ray import serve

        resources = self._resources[key]
        application = self._application(key)
        deployment = serve.deployment(
            Replica,
            name="replica",
            num_replicas=1,
            max_ongoing_requests=1000,
            health_check_period_s=HEALTH,
            health_check_timeout_s=30,
            graceful_shutdown_wait_loop_s=0.1,
            graceful_shutdown_timeout_s=10,
            max_constructor_retry_count=2,
            ray_actor_options={
                "num_cpus": resources.get("CPU", 0),
                "num_gpus": resources.get("GPU", 0),
                "label_selector": {"ray.io/node-id": key},
            },
        )
        bound = deployment.bind(  # type: ignore[attr-defined,unused-ignore]
            self._shelf, application, dict(resources), self._isolation, self._trusted
        )
        quiet = {"log_level": "WARNING", "enable_access_log": False}  # a line a call costs more than a small call
        target = serve.RunTarget(bound, name=application, route_prefix=None, logging_config=quiet)
        return serve.run_many([target], wait_for_applications_running=False)[0]

    def remove(self, key: str) -> None:
        """Have the replica of a node ended, if there is one still."""
        from ray import serve

        with suppress(Exception):  # the node, and what told of it, may be gone
            serve.delete(self._application(key), _blocking=False)

    def close(self) -> None:
        """Wait until all replicas have ended."""
        from ray import serve

        until = time.monotonic() + END_SECONDS
        with suppress(Exception):
            while any(name.startswith(self.name) for name in serve.status().applications):
                if time.monotonic() > until:
                    return
                time.sleep(0.1)

    def refusal(self, key: str) -> str | None:
        """Why the replica of a node cannot start; None when it can, or when nobody knows yet."""
        from ray import serve

        found = serve.status().applications.get(self._application(key))
        if found is None or found.status != "DEPLOY_FAILED":
            return None
        said = [d.message for d in found.deployments.values() if d.message] or [found.message]
        return _reason(said[0])

    def _application(self, key: str) -> str:
        return f"{self.name}-{key[:12]}"


def _name(address: str, key: str, count: Mapping[str, int]) -> str:
    """A node's address, and the beginning of its id where several share one."""
    return address if count[address] == 1 else f"{address}-{key[:6]}"


def _offers(resources: Mapping[str, float]) -> bool:
    return resources.get("CPU", 0) >= 1 or resources.get("GPU", 0) >= 1


def _reason(message: str) -> str:
    """The error in Ray's account of it: the last line that names one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.partition(":")[0].endswith("Error")]
    return (errors or lines or ["it does not start"])[-1].removeprefix("ripieno.errors.")
