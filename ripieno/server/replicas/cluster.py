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
from ripieno.engine.config import EngineConfig
from ripieno.errors import RipienoError, require
from ripieno.server.replicas.replica import BundleFileServer, Replica

HEALTH = 2.0
"""Seconds between two health checks of a replica by Ray Serve."""
END_SECONDS = 30.0
"""Longest wait for replicas to end."""


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Connect Ray to the cluster at `address` (`auto`: that of this machine) with Ray Serve; yield Ray.

    On exit, a Ray connection and a Ray Serve instance that were already running are left unchanged.

    Raises MissingExtraError, AllocationError as `ripieno.cluster.nodes.connected`.
    """
    ray = require("ray")
    if address.startswith("ray://"):
        raise RipienoError(
            f"{address} is the address of a Ray client. Deploy from a machine of the cluster, with HOST:PORT."
        )
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")  # read when Serve is imported
    spec = "ray" if address == "auto" else f"ray:{address.removeprefix('ray:')}"
    with connected(ray, spec):
        try:
            from ray import serve
        except ImportError as error:  # Ray without the dependencies of Serve
            raise RipienoError(
                f"Ray Serve is not installed ({error}). Install it: pip install 'ripieno[cluster]'"
            ) from error
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        started = not _serving(ray)
        serve.start(proxy_location="Disabled")  # only the server of ripieno is used
        try:
            yield ray
        finally:
            if started and not _has_applications(serve):
                with suppress(Exception):
                    serve.shutdown()  # type: ignore[no-untyped-call,unused-ignore]


def _serving(ray: Any) -> bool:
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def _has_applications(serve: Any) -> bool:
    try:
        return bool(serve.status().applications)
    except Exception:  # the cluster has ended: nothing is left to shut down
        return True


class Cluster:
    """Replicas on the living nodes of a Ray cluster; `bundle` is the folder that they fetch."""

    def __init__(self, ray: Any, bundle: Path, config: EngineConfig, trusted: Sequence[str] = ()) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._config, self._trusted = ray, config, tuple(trusted)
        self.name = f"ripieno-{secrets.token_hex(4)}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        file_server = ray.remote(BundleFileServer).options(num_cpus=0, scheduling_strategy=here, max_restarts=0)
        self._file_server = file_server.remote(str(bundle.resolve()))
        ray.get(self._file_server.names.remote(), timeout=60)
        self._resources: dict[str, Mapping[str, float]] = {}

    def nodes(self) -> Mapping[str, str]:
        """Return the names of the living nodes that offer CPUs or GPUs, by their ids."""
        alive = {n["NodeID"]: n for n in self._ray.nodes() if n["Alive"]}
        offered = {key: n["Resources"] for key, n in alive.items()}
        living = {
            key: alive[key]["NodeManagerAddress"]
            for key, resources in offered.items()
            if resources.get("CPU", 0) >= 1 or resources.get("GPU", 0) >= 1
        }
        self._resources.update(offered)
        count = Counter(living.values())
        # several nodes may share an address
        return {key: name if count[name] == 1 else f"{name}-{key[:6]}" for key, name in living.items()}

    def place(self, key: str) -> Any:
        """Start a replica with all CPUs and GPUs that a node offers to Ray; return its handle."""
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
            self._file_server, application, dict(resources), self._config, self._trusted
        )
        # a log line per call takes longer than a small call
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        target = serve.RunTarget(bound, name=application, route_prefix=None, logging_config=quiet)
        return serve.run_many([target], wait_for_applications_running=False)[0]

    def remove(self, key: str) -> None:
        """Stop the replica of a node, if there is still one."""
        from ray import serve

        with suppress(Exception):  # the node and its status may be lost
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
        """Return the reason why the replica of a node cannot start; None when it can, or when it is not known yet."""
        from ray import serve

        status = serve.status().applications.get(self._application(key))
        if status is None or status.status != "DEPLOY_FAILED":
            return None
        messages = [d.message for d in status.deployments.values() if d.message] or [status.message]
        return _reason(messages[0])

    def _application(self, key: str) -> str:
        return f"{self.name}-{key[:12]}"


def _reason(message: str) -> str:
    """Return the error in a message of Ray: the last line that names one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.partition(":")[0].endswith("Error")]
    return (errors or lines or ["The replica does not start"])[-1].removeprefix("ripieno.errors.")
