"""Router of requests to the replicas of many nodes, with the interface of an engine."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ripieno.durations import check_duration
from ripieno.engine.inference_result import Answer, InferenceStep, MemberStats, Stats, WorkerStats
from ripieno.engine.inputs import check_images
from ripieno.errors import EngineError
from ripieno.server.replicas.chunk_queue import ChunkQueue, PendingRequest, RequestOptions
from ripieno.server.replicas.replica_client import ReplicaClient
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.server.replicas.cluster import Cluster

CAPACITY = 8192
"""Most samples in the queue; requests that may block wait for room."""
POLL_SECONDS = 1.0
"""Seconds between two checks of the list of nodes."""


class ReplicaRouter:
    """Router with the interface of `Engine`, over the nodes of `backend`, which may join and leave. Close it."""

    def __init__(self, bundle: Bundle, backend: Cluster) -> None:
        self.bundle, self.backend = bundle, backend
        self.nodes: dict[str, ReplicaClient] = {}
        """by the id of the node"""
        self.refused: dict[str, tuple[str, str]] = {}
        """nodes that cannot hold the bundle: name and reason, by the id of the node"""
        self._waiting = ChunkQueue(CAPACITY)
        self._counts = {"requests": 0, "samples": 0, "partial": 0, "failed": 0}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reconcile()
        self._thread = threading.Thread(target=self._reconcile_periodically, name="ripieno-router", daemon=True)
        self._thread.start()

    # requests

    def submit(
        self,
        images: NDArray[np.generic],
        members: Sequence[str] | None = None,
        *,
        spread: bool = False,
        each: bool = False,
        disagreement: bool = False,
        timeout: float | None = None,
        deadline: float | None = None,
        partial: bool = False,
        steps: list[InferenceStep] | None = None,
        block: bool = True,
    ) -> Future[Answer]:
        """Submit as `Engine.submit`; without `partial`, the caller enforces the `deadline`. Each call is a step."""
        if timeout is not None:
            timeout = check_duration(timeout, "timeout", zero=True, error=EngineError)
        if deadline is not None:
            deadline = check_duration(deadline, "deadline", zero=True, error=EngineError)
        array = check_images(images, self.bundle.input)
        if block:  # the caller may change it once this returns
            array = np.array(array)
        if not len(array):
            raise EngineError("No samples to send. Pass at least one.")
        unknown = [m for m in members or () if m not in self.bundle.ensemble.members]
        if unknown:
            raise EngineError(
                f"Unknown member {unknown[0]!r}. The members are: {', '.join(self.bundle.ensemble.members)}"
            )
        until = time.monotonic() + deadline if partial and deadline is not None else None
        chosen = None if members is None else tuple(members)
        request = PendingRequest(array, RequestOptions(chosen, spread, each, disagreement, until), steps)
        request.future.add_done_callback(lambda future: self._count(future, len(array)))
        self._waiting.put(request, timeout, block=block)
        return request.future

    @property
    def waiting(self) -> int:
        """Number of requests with samples that wait for a node."""
        return len(self._waiting)

    def _count(self, future: Future[Answer], samples: int) -> None:
        with self._lock:
            if future.cancelled() or future.exception() is not None:
                self._counts["failed"] += not future.cancelled()
                return
            self._counts["requests"] += 1
            self._counts["samples"] += samples
            self._counts["partial"] += future.result().partial

    # state

    @property
    def ready(self) -> bool:
        """True if at least one node is up."""
        return any(node.up.is_set() for node in self.nodes.values())

    def stats(self) -> Stats:
        """Return the counters since the start: requests of this router, workers and members by the last status."""
        workers: list[WorkerStats] = []
        members: dict[str, MemberStats] = {m: MemberStats(0, 0, 0.0, 0.0) for m in self.bundle.ensemble.members}
        combining = 0.0
        for node in list(self.nodes.values()):
            if node.status is None:
                continue
            stats = node.status.stats
            combining += stats.combining
            up = node.up.is_set()
            workers += [
                dataclasses.replace(worker, device=f"{worker.device}@{node.name}", up=worker.up and up)
                for worker in stats.lanes
            ]
            members = {m: _sum(work, stats.members.get(m)) for m, work in members.items()}
        return Stats(
            **self._counts,
            pending=self._waiting.samples,
            capacity=self._waiting.capacity,
            combining=combining,
            members=members,
            lanes=tuple(workers),
        )

    def wait(self, seconds: float, on_progress: Callable[[int, int], None] = lambda _up, _of: None) -> None:
        """Wait until every current node is up, or cannot start; report (up, all) to `on_progress`.

        Raises EngineError when no node is up within `seconds`, or none can start.
        """
        until = time.monotonic() + seconds
        while True:
            nodes = list(self.nodes.values())
            up = sum(node.up.is_set() for node in nodes)
            on_progress(up, len(nodes) + len(self.refused))
            if nodes and up == len(nodes):
                return
            if not nodes or time.monotonic() > until:
                break
            time.sleep(0.1)
        if not self.ready:
            why = [f"{name}: {reason}" for name, reason in self.refused.values()]
            raise EngineError("; ".join(why) or f"No node of the cluster is ready after {seconds:g} s")

    def close(self) -> None:
        """Fail the waiting requests, and stop the replicas."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        for node in self.nodes.values():
            node.leave()
        self._waiting.close()
        for node in self.nodes.values():
            node.join()
        for key in self.nodes:
            self.backend.remove(key)

    # reconciliation

    def _reconcile_periodically(self) -> None:
        while not self._closed.wait(POLL_SECONDS):
            try:
                self._reconcile()
            except Exception:  # the cluster may be handling a node's death: try again in the next round
                continue

    def _reconcile(self) -> None:
        living = self.backend.nodes()
        for key in [key for key in self.nodes if key not in living]:
            self._end(key)
        # a node that left may join again with more memory and another id
        self.refused = {key: reason for key, reason in self.refused.items() if key in living}
        for key, name in living.items():
            if key not in self.nodes and key not in self.refused:
                self.nodes = {**self.nodes, key: ReplicaClient(name, self.backend.place(key), self._waiting)}
            elif key in self.nodes and not self.nodes[key].up.is_set():
                why = self.backend.refusal(key)
                if why is not None:
                    self.refused = {**self.refused, key: (name, why)}
                    self._end(key)

    def _end(self, key: str) -> None:
        self.nodes[key].leave()
        self.nodes = {other: kept for other, kept in self.nodes.items() if other != key}
        self.backend.remove(key)


def _sum(one: MemberStats, other: MemberStats | None) -> MemberStats:
    if other is None:
        return one
    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    return MemberStats(*(a + b for a, b in pairs))
