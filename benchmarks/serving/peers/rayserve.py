"""Ray Serve: a front that batches with a replica per network, or replicas of the whole ensemble; on its own Ray."""
# ruff: noqa: D102 - the framework defines the methods

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile

import numpy as np
from ensemble import Ensemble, Network, arguments, free_port, mean, paths, to_images

# Ray Serve reads these when it is imported
os.environ |= {
    # direct gRPC between replicas, user code in the replica's own event loop, buffered logs
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # HAProxy, which Ray's wheels include, in place of the proxy in Python (it listens on all interfaces)
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
    "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    # Ray's own priority for workers is nice 15
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

TITLE = "Ray Serve"
PROTOCOL = "raw"
SETTINGS = {
    "composition": "a front with batches up to 64 without delay, two at once, calls a replica per network, all at once",
    "at once": "an ensemble replica per core, batches up to 64 without delay; networks at once, in a thread per core",
    "threads": "one replica, batches up to 64; networks one after the other, each with a thread per core",
}
REQUIREMENTS = ("ray[serve]==2.60.0", "onnxruntime==1.31.1")

REPLICA = {"num_cpus": 0}


def joined(bodies: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Join the images of many requests; return them, and the end of each request's answers but the last."""
    images = to_images(b"".join(bodies))
    return images, np.cumsum([len(body) for body in bodies])[:-1] // images[0].nbytes


@serve.deployment(ray_actor_options=REPLICA, max_ongoing_requests=16)
class Member:
    """One network."""

    def __init__(self, path: str) -> None:
        self.network = Network(path)

    async def __call__(self, images: np.ndarray) -> np.ndarray:
        return await asyncio.to_thread(self.network, images)


@serve.deployment(ray_actor_options=REPLICA, max_ongoing_requests=512)
class Front:
    """A front that batches requests, calls every network and combines the answers."""

    def __init__(self, *members: serve.handle.DeploymentHandle) -> None:
        self.members = members

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0, max_concurrent_batches=2)
    async def answer(self, bodies: list[bytes]) -> list[bytes]:
        """Return the probabilities for each of many bodies."""
        images, ends = joined(bodies)
        answers = mean(await asyncio.gather(*(member.remote(images) for member in self.members)))
        return [part.tobytes() for part in np.split(answers, ends)]

    async def __call__(self, request: Request) -> Response:
        return Response(await self.answer(await request.body()), media_type="application/octet-stream")


@serve.deployment(ray_actor_options=REPLICA, max_ongoing_requests=512)
class Whole:
    """The ensemble, in batches."""

    def __init__(self, folder: str, threads: int, helpers: int) -> None:
        self.ensemble = Ensemble(folder, threads, helpers)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0)
    async def answer(self, bodies: list[bytes]) -> list[bytes]:
        """Return the probabilities for each of many bodies."""
        images, ends = joined(bodies)
        answers = await asyncio.to_thread(self.ensemble, images)
        return [part.tobytes() for part in np.split(answers, ends)]

    async def __call__(self, request: Request) -> Response:
        return Response(await self.answer(await request.body()), media_type="application/octet-stream")


def main() -> None:
    """Serve until SIGTERM."""
    folder, port, cores, setting = arguments()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as place:
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=256 << 20,
            _temp_dir=place,
            logging_level=logging.ERROR,
        )
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
        if setting == "composition":
            serve.run(Front.bind(*(Member.options(name=p.parent.name).bind(str(p)) for p in paths(folder))))
        else:
            whole = setting == "threads"
            replicas = Whole.options(num_replicas=1 if whole else cores)
            serve.run(replicas.bind(folder, cores if whole else 1, 0 if whole else cores - 1))
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            signal.pause()
        except KeyboardInterrupt:
            ray.shutdown()


if __name__ == "__main__":
    main()
