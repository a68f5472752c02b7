"""A fleet of nodes in the place of an engine: what the door asks."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ripieno.durations import check_duration
from ripieno.engine.inference_result import Answer, MemberStats, Stats, WorkerStats
from ripieno.engine.inputs import check_images
from ripieno.engine.trace import InferenceStep
from ripieno.errors import EngineError
from ripieno.server.replicas.chunk_queue import ChunkQueue, PendingRequest, RequestOptions
from ripieno.server.replicas.replica_client import ReplicaClient
from ripieno.types import Bundle

CAPACITY = 8192
"""Samples that wait for a node; who may wait for room waits beyond it."""
LOOK = 1.0
"""Seconds between two looks at which nodes there are."""


class ReplicaBackend(Protocol):
    """Where replicas run; `cluster.Cluster` is the one on Ray."""

    def nodes(self) -> Mapping[str, str]:
        """Names of the living nodes that can hold a replica, by their ids."""
        ...

    def place(self, key: str) -> Any:
        """Begin to run a replica on a node; the handle to it."""
        ...

    def remove(self, key: str) -> None:
        """End the replica of a node, if there is one still."""
        ...

    def refusal(self, key: str) -> str | None:
        """Why the replica of a node cannot start, None when it can or nobody knows yet."""
        ...


class ReplicaRouter:
    """Answers as `Engine` does, by the nodes of `ground`, which may come and go. Close it."""

    def __init__(self, bundle: Bundle, ground: ReplicaBackend) -> None:
        self.bundle, self.ground = bundle, ground
        self.nodes: dict[str, ReplicaClient] = {}
        """by the id of the node"""
        self.refused: dict[str, tuple[str, str]] = {}
        """nodes that cannot hold the bundle: name and reason, by the id of the node"""
        self._gone = 0
        self._waiting = ChunkQueue(CAPACITY)
        self._counts = {"requests": 0, "samples": 0, "partial": 0, "failed": 0}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reconcile()
        self._watch = threading.Thread(target=self._reconcile_periodically, name="ripieno-fleet", daemon=True)
        self._watch.start()

    # requests

    def submit(
        self,
        images: NDArray[np.generic],
        members: Sequence[str] | None = None,
        *,
        spread: bool = False,
        each: bool = False,
        timeout: float | None = None,
        deadline: float | None = None,
        partial: bool = False,
        steps: list[InferenceStep] | None = None,
        block: bool = True,
    ) -> Future[Answer]:
        """As `Engine.submit`; without `partial` a `deadline` is the caller's to keep. Each node's call is a step."""
        if timeout is not None:
            timeout = check_duration(timeout, "timeout", zero=True, error=EngineError)
        if deadline is not None:
            deadline = check_duration(deadline, "deadline", zero=True, error=EngineError)
        array = check_images(images, self.bundle.input)
        if block:  # it may change once this returns
            array = np.array(array)
        if not len(array):
            raise EngineError("no images were given: send at least one")
        unknown = [m for m in members or () if m not in self.bundle.ensemble.members]
        if unknown:
            raise EngineError(f"no member {unknown[0]!r}; there are: {', '.join(self.bundle.ensemble.members)}")
        until = time.monotonic() + deadline if partial and deadline is not None else None
        question = PendingRequest(
            array, RequestOptions(None if members is None else tuple(members), spread, each, until), steps
        )
        question.future.add_done_callback(lambda future: self._count(future, len(array)))
        self._waiting.put(question, timeout, block=block)
        return question.future

    @property
    def waiting(self) -> int:
        """Requests of which some samples wait for a node."""
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
        """Whether some node answers."""
        return any(node.up.is_set() for node in self.nodes.values())

    def stats(self) -> Stats:
        """What was done since the start: requests here, lanes and members as the nodes last told (a second ago)."""
        lanes: list[WorkerStats] = []
        members: dict[str, MemberStats] = {m: MemberStats(0, 0, 0.0, 0.0) for m in self.bundle.ensemble.members}
        combining = 0.0
        for node in list(self.nodes.values()):
            if node.status is None:
                continue
            told = node.status.stats
            combining += told.combining
            up = node.up.is_set()
            lanes += [
                dataclasses.replace(lane, device=f"{lane.device}@{node.name}", up=lane.up and up) for lane in told.lanes
            ]
            members = {m: _sum(work, told.members.get(m)) for m, work in members.items()}
        return Stats(
            **self._counts,
            pending=self._waiting.samples,
            capacity=self._waiting.capacity,
            combining=combining,
            members=members,
            lanes=tuple(lanes),
        )

    @property
    def retried(self) -> int:
        """Parts of requests that were asked again because their node died."""
        return self._gone + sum(node.retried for node in list(self.nodes.values()))

    def wait(self, seconds: float, told: Callable[[int, int], None] = lambda _up, _of: None) -> None:
        """Until every node that is there now answers, or has refused; `told` of how many do.

        Raises EngineError when none does within `seconds`, or all have refused.
        """
        until = time.monotonic() + seconds
        while True:
            nodes = list(self.nodes.values())
            up = sum(node.up.is_set() for node in nodes)
            told(up, len(nodes) + len(self.refused))
            if nodes and up == len(nodes):
                return
            if not nodes or time.monotonic() > until:
                break
            time.sleep(0.1)
        if not self.ready:
            why = [f"{name}: {reason}" for name, reason in self.refused.values()]
            raise EngineError("; ".join(why) or f"no node of the cluster answers within {seconds:g} s")

    def close(self) -> None:
        """Fail what waits, end the replicas."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._watch.join()
        for node in self.nodes.values():
            node.leave()
        self._waiting.close()
        for node in self.nodes.values():
            node.join()
        for key in self.nodes:
            self.ground.remove(key)

    # the watch

    def _reconcile_periodically(self) -> None:
        while not self._closed.wait(LOOK):
            try:
                self._reconcile()
            except Exception:  # the cluster is busy with a death of its own: the next look tells
                continue

    def _reconcile(self) -> None:
        living = self.ground.nodes()
        for key in [key for key in self.nodes if key not in living]:
            self._end(key)
        # one that is gone may come back with more room, by another id
        self.refused = {key: said for key, said in self.refused.items() if key in living}
        for key, name in living.items():
            if key not in self.nodes and key not in self.refused:
                self.nodes = {**self.nodes, key: ReplicaClient(name, self.ground.place(key), self._waiting)}
            elif key in self.nodes and not self.nodes[key].up.is_set():
                why = self.ground.refusal(key)
                if why is not None:
                    self.refused = {**self.refused, key: (name, why)}
                    self._end(key)

    def _end(self, key: str) -> None:
        node = self.nodes[key]
        node.leave()
        self._gone += node.retried
        self.nodes = {other: kept for other, kept in self.nodes.items() if other != key}
        self.ground.remove(key)


def _sum(one: MemberStats, other: MemberStats | None) -> MemberStats:
    if other is None:
        return one
    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    return MemberStats(*(a + b for a, b in pairs))
