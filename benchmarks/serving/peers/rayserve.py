"""Ray Serve: a composition of a front that batches and a replica for each network, on a Ray of its own."""
# ruff: noqa: D102 - the methods are those the framework asks for

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile

import numpy as np
import ray
from ensemble import SHAPE, Network, arguments, mean, paths
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

TITLE = "Ray Serve, composition"
PROTOCOL = "raw"
SETTINGS = (
    "front batches up to 64 requests without delay, two batches at once; a replica a network, one thread each; workers "
    "at the priority of all others (Ray's own is nice 15)"
)
REQUIREMENTS = ("ray[serve]==2.60.0", "onnxruntime==1.31.1")

REPLICA = {"num_cpus": 0}


@serve.deployment(ray_actor_options=REPLICA, max_ongoing_requests=16)
class Member:
    """One network."""

    def __init__(self, path: str) -> None:
        self.network = Network(path)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.network(images)


@serve.deployment(ray_actor_options=REPLICA, max_ongoing_requests=512)
class Front:
    """Batches requests, asks every network, combines."""

    def __init__(self, *members: serve.handle.DeploymentHandle) -> None:
        self.members = members

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0, max_concurrent_batches=2)
    async def answer(self, bodies: list[bytes]) -> list[bytes]:
        """Probabilities for each of many bodies."""
        images = np.frombuffer(b"".join(bodies), np.uint8).reshape(-1, *SHAPE)
        answers = mean(await asyncio.gather(*(member.remote(images) for member in self.members)))
        ends = np.cumsum([len(body) for body in bodies]) // images[0].nbytes
        return [part.tobytes() for part in np.split(answers, ends[:-1])]

    async def __call__(self, request: Request) -> Response:
        return Response(await self.answer(await request.body()), media_type="application/octet-stream")


def main() -> None:
    """Serve until told to stop."""
    folder, port, cores = arguments()
    os.environ.update(RAY_worker_niceness="0", RAY_USAGE_STATS_ENABLED="0")
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
        serve.run(Front.bind(*(Member.options(name=p.parent.name).bind(str(p)) for p in paths(folder))))
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            signal.pause()
        except KeyboardInterrupt:
            ray.shutdown()


if __name__ == "__main__":
    main()
