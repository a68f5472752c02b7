"""Replica on a node: an engine on the devices of the node; it fetches the bundle from the deploying program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.engine import Engine
from ripieno.engine.config import EngineConfig
from ripieno.errors import EngineError
from ripieno.library.bundle import model_files, read_bundle
from ripieno.profiles import local_devices
from ripieno.resources import sleep_while_waiting
from ripieno.server.replicas.replan import adapt_allocation, node_devices
from ripieno.server.scratch import Scratch
from ripieno.types import Allocation

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer, Stats

DOWN_SECONDS = 60.0
"""Seconds after which a replica is restarted if its workers stay down."""


class BundleFileServer:
    """Actor that serves the files of a bundle to the replicas; it lives as long as the deploying program."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        bundle = read_bundle(folder)
        self._names = ["bundle.json"]
        self._names += model_files(bundle)

    def names(self) -> list[str]:
        """Return the names of all files; also used as a sign of life."""
        return self._names

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        assert name in self._names
        return (self._folder / name).read_bytes()


@dataclass(frozen=True)
class ReplicaStatus:
    """State of a replica."""

    ready: bool
    stats: Stats
    allocation: Allocation
    process: int


class Replica:
    """Engine on this node, run by Ray Serve. `application` is the name of its deployment."""

    def __init__(
        self,
        file_server: Any,
        application: str,
        resources: Mapping[str, float],
        config: EngineConfig,
        trusted: Sequence[str] = (),
    ) -> None:
        self._file_server, self._application = file_server, application
        self._down: float | None = None
        sleep_while_waiting()
        self._scratch = Scratch()
        try:
            devices = node_devices(resources, local_devices("auto"))
            bundle = adapt_allocation(read_bundle(self._fetch(), trusted), devices)
            self._engine = Engine(bundle, config)
        except BaseException:
            self._scratch.remove()
            raise

    def _fetch(self) -> Path:
        import ray

        for name in ray.get(self._file_server.names.remote()):
            files.write_bytes(self._scratch.path / name, ray.get(self._file_server.read.remote(name)))
        return self._scratch.path

    async def answer(
        self,
        images: NDArray[np.generic],
        members: Sequence[str] | None,
        spread: bool,
        each: bool,
        disagreement: bool,
        deadline: float | None,
    ) -> Answer:
        """Answer as `Engine.answer`; with a `deadline` in seconds, from the members that finish in time."""
        return await self._engine.answer(
            images,
            members,
            spread=spread,
            each=each,
            disagreement=disagreement,
            deadline=deadline,
            partial=deadline is not None,
        )

    async def status(self) -> ReplicaStatus:
        """Return the current state."""
        return ReplicaStatus(self._engine.ready, self._engine.stats(), self._engine.bundle.allocation, os.getpid())

    async def check_health(self) -> None:
        """Check the health for Ray Serve, which replaces a replica that raises.

        Without the deploying program, the replica removes itself.
        """
        from ray.exceptions import ActorDiedError, ActorUnavailableError

        try:
            await self._file_server.names.remote()
        except ActorDiedError:
            from ray import serve

            await asyncio.to_thread(serve.delete, self._application, _blocking=False)
            return
        except ActorUnavailableError:
            pass  # a short network failure
        now = time.monotonic()
        self._down = None if self._engine.ready else self._down or now
        if self._down is not None and now - self._down > DOWN_SECONDS:
            raise EngineError(f"Workers have been down for {now - self._down:.0f} s")

    def __del__(self) -> None:
        """Release the engine and the files; called by Ray Serve at the end."""
        with contextlib.suppress(AttributeError):  # __init__ failed
            self._engine.close(drain=False)
        with contextlib.suppress(AttributeError):
            self._scratch.remove()
