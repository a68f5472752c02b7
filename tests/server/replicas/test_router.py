"""The router over nodes of this process: queueing, distribution, and the loss of a node."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.engine.inference_result import Answer
from ripieno.errors import EngineBusyError, EngineError
from ripieno.server.replicas.chunk_queue import CHUNK_SAMPLES, ChunkQueue, PendingRequest, RequestOptions
from ripieno.server.replicas.deploy import deployments
from ripieno.server.replicas.replica import ReplicaStatus
from ripieno.server.replicas.replica_client import TRIES
from ripieno.server.replicas.router import CAPACITY, ReplicaRouter
from ripieno.tasks.uncertainty import mutual_information
from ripieno.types import Bundle
from tests.server.stand_in import SHAPE, StandIn, direct_answers, write_small_bundle


class Response:
    """Response of Ray Serve, over a future."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future

    def result(self, timeout_s: float) -> Any:
        return self.future.result(timeout_s)

    def cancel(self) -> None:
        self.future.cancel()


class Handle:
    """Engine of a node that can be `dead`, `silent` or `broken`."""

    def __init__(self, bundle: Bundle) -> None:
        self.engine = StandIn(bundle)
        self.dead = self.silent = self.broken = False
        self.calls: list[int] = []
        self.answer, self.status = Remote(self._answer), Remote(self._status)

    def _check(self) -> None:
        if self.dead:
            raise ConnectionError("The actor is dead\nits node was killed")

    def _answer(
        self, images: Any, members: Any, spread: bool, each: bool, disagreement: bool, deadline: Any
    ) -> Future[Answer]:
        self._check()
        self.calls.append(len(images))
        if self.broken:
            raise EngineError("member 00000-e003 died three times")
        if self.silent:
            return Future()
        return self.engine.submit(images, members, spread=spread, each=each, disagreement=disagreement)

    def _status(self) -> Future[ReplicaStatus]:
        self._check()
        future: Future[ReplicaStatus] = Future()
        if not self.silent:
            future.set_result(ReplicaStatus(True, self.engine.stats(), self.engine.bundle.allocation, 1))
        return future


class Remote:
    def __init__(self, call: Any) -> None:
        self.remote = lambda *arguments: Response(call(*arguments))


class FakeBackend:
    """Replica backend with nodes that a test sets."""

    def __init__(self, handles: Mapping[str, Handle]) -> None:
        self.handles = dict(handles)
        self.refusals: dict[str, str] = {}
        self.removed: list[str] = []
        self.names: dict[str, str] = {}
        """names of nodes, where they differ from the id"""

    def nodes(self) -> Mapping[str, str]:
        return {key: self.names.get(key, key) for key in self.handles}

    def place(self, key: str) -> Handle:
        return self.handles[key]

    def remove(self, key: str) -> None:
        self.removed.append(key)

    def refusal(self, key: str) -> str | None:
        return self.refusals.get(key)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("router"))


@pytest.fixture(scope="module")
def truth(bundle: Bundle, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return direct_answers(bundle, images)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (3 * CHUNK_SAMPLES // 2, *SHAPE), dtype=np.uint8)


@pytest.fixture
def backend(bundle: Bundle) -> FakeBackend:
    return FakeBackend({"a": Handle(bundle), "b": Handle(bundle)})


@pytest.fixture
def router(bundle: Bundle, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReplicaRouter]:
    monkeypatch.setattr("ripieno.server.replicas.replica_client.POLL_SECONDS", 0.05)
    monkeypatch.setattr("ripieno.server.replicas.replica_client.PING", 0.2)
    monkeypatch.setattr("ripieno.server.replicas.router.POLL_SECONDS", 0.05)
    router = ReplicaRouter(bundle, backend)
    router.wait(5)
    yield router
    router.close()


def soon(done: Any) -> None:
    until = time.monotonic() + 10
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_large_request_is_spread_and_assembled_in_order(
    router: ReplicaRouter, backend: FakeBackend, images: NDArray[np.uint8], truth: NDArray[np.float32]
) -> None:
    answer = router.submit(images, spread=True, each=True, disagreement=True).result(20)
    np.testing.assert_allclose(answer.predictions, truth.mean(0), atol=1e-6)
    assert answer.member_predictions is not None
    np.testing.assert_allclose(answer.member_predictions, truth, atol=1e-6)
    assert answer.std is not None
    assert answer.std.shape == (len(images),)
    np.testing.assert_allclose(answer.disagreement, mutual_information(truth, np.full(2, 0.5), "softmax"), atol=1e-6)
    assert max(max(h.calls, default=0) for h in backend.handles.values()) == CHUNK_SAMPLES
    assert router.stats().samples == len(images)


def test_chunks_of_a_dead_node_are_answered_by_another(
    router: ReplicaRouter, backend: FakeBackend, images: NDArray[np.uint8], truth: NDArray[np.float32]
) -> None:
    backend.handles["a"].dead = True
    for at in range(20):
        answer = router.submit(images[at : at + 2]).result(20)
        np.testing.assert_allclose(answer.predictions, truth.mean(0)[at : at + 2], atol=1e-6)
    assert router.ready
    soon(lambda: not router.nodes["a"].up.is_set())
    backend.handles["a"].dead = False
    soon(lambda: router.nodes["a"].up.is_set())


def test_chunks_of_a_silent_node_are_answered_by_another(
    router: ReplicaRouter, backend: FakeBackend, images: NDArray[np.uint8], truth: NDArray[np.float32]
) -> None:
    for handle in backend.handles.values():
        handle.silent = True
    futures = [router.submit(images[i : i + 1]) for i in range(8)]
    soon(lambda: not router.ready)
    backend.handles["b"].silent = False
    for i, future in enumerate(futures):
        np.testing.assert_allclose(future.result(20).predictions, truth.mean(0)[i : i + 1], atol=1e-6)


def test_a_request_that_every_node_fails_on_fails_with_the_reason(
    router: ReplicaRouter, backend: FakeBackend, images: NDArray[np.uint8]
) -> None:
    for handle in backend.handles.values():
        handle.broken = True
    with pytest.raises(EngineError, match=f"{TRIES} nodes failed on this request.*died three times"):
        router.submit(images[:1]).result(20)
    assert router.stats().failed == 1


def test_nodes_join_leave_and_are_refused(router: ReplicaRouter, backend: FakeBackend, bundle: Bundle) -> None:
    backend.handles["c"] = Handle(bundle)
    soon(lambda: "c" in router.nodes and router.nodes["c"].up.is_set())
    del backend.handles["a"]
    soon(lambda: "a" not in router.nodes)
    assert backend.removed == ["a"]
    backend.refusals["d"], backend.handles["d"] = "AllocationError: no room", Handle(bundle)
    backend.handles["d"].dead = True
    soon(lambda: router.refused == {"d": ("d", "AllocationError: no room")})
    assert router.ready


def test_a_node_that_refused_is_tried_again_when_it_joins_again(
    router: ReplicaRouter, backend: FakeBackend, bundle: Bundle
) -> None:
    backend.names = {"d1": "d", "d2": "d"}
    small = Handle(bundle)
    small.dead, backend.refusals["d1"] = True, "AllocationError: no room"
    backend.handles["d1"] = small
    soon(lambda: router.refused == {"d1": ("d", "AllocationError: no room")})
    assert [(p.node, p.refusal) for p in deployments(router) if p.refusal] == [("d", "AllocationError: no room")]
    backend.handles["d2"] = Handle(bundle)
    del backend.handles["d1"]
    soon(lambda: "d2" in router.nodes and router.nodes["d2"].up.is_set())
    soon(lambda: not router.refused)


def test_a_cancelled_request_leaves_its_node_up(
    router: ReplicaRouter, backend: FakeBackend, images: NDArray[np.uint8]
) -> None:
    for handle in backend.handles.values():
        handle.engine.gate.clear()
    future = router.submit(images[:1])
    soon(lambda: any(h.calls for h in backend.handles.values()))
    future.cancel()
    time.sleep(0.2)
    assert all(node.up.is_set() for node in router.nodes.values())
    for handle in backend.handles.values():
        handle.engine.gate.set()
    assert len(router.submit(images[:1]).result(20).predictions) == 1


def test_small_requests_are_sent_together_and_only_with_the_same_options(images: NDArray[np.uint8]) -> None:
    queue = ChunkQueue(CAPACITY)
    plain = RequestOptions(None, False, False, False, None)
    for options in (plain, plain, plain._replace(spread=True), plain, plain._replace(disagreement=True)):
        queue.put(PendingRequest(images[:2], options), 0)
    assert [len(queue.take(0)) for _ in range(5)] == [2, 1, 1, 1, 0]
    queue.put(PendingRequest(images, plain), 0)
    assert [len(p.images) for p in queue.take(0)] == [CHUNK_SAMPLES]


def test_a_full_queue_is_busy_and_a_closed_one_fails_waiting_requests(images: NDArray[np.uint8]) -> None:
    queue = ChunkQueue(4)
    options = RequestOptions(None, False, False, False, None)
    first = PendingRequest(images[:9], options)
    queue.put(first, 0)  # more than the capacity, but the queue is empty
    with pytest.raises(EngineBusyError):
        queue.put(PendingRequest(images[:1], options), 0)
    taken = queue.take(0)
    queue.close()
    queue.requeue(taken)
    with pytest.raises(EngineError, match="closed"):
        first.future.result(0)
    with pytest.raises(EngineError, match="closed"):
        queue.put(PendingRequest(images[:1], options), 0)


def test_a_small_request_goes_before_the_chunks_of_a_large_one_and_beyond_a_full_queue(
    images: NDArray[np.uint8],
) -> None:
    queue, options = ChunkQueue(4), RequestOptions(None, False, False, False, None)
    large = PendingRequest(np.repeat(images[:1], 3 * CHUNK_SAMPLES, axis=0), options)
    small = PendingRequest(images[:1], options)
    queue.put(large, 0)
    queue.put(small, block=False)
    taken = queue.take(0)
    assert taken[0].request is small
    assert len(queue) == 1


def test_a_cancelled_request_leaves_the_queue(images: NDArray[np.uint8]) -> None:
    queue = ChunkQueue(4)
    request = PendingRequest(images[:4], RequestOptions(None, False, False, False, None))
    queue.put(request, 0)
    request.future.cancel()
    assert (len(queue), queue.samples) == (0, 0)
    assert queue.take(0) == []


def test_a_replica_fetches_its_bundle_and_places_it_on_its_own_devices(
    bundle: Bundle, images: NDArray[np.uint8], truth: NDArray[np.float32]
) -> None:
    from ripieno.server.replicas.replan import adapt_allocation, node_devices
    from ripieno.types import Device

    devices = (Device("cpu:0", "cpu", 1 << 30, (4, 5, 6, 7)),)
    (own,) = node_devices({"CPU": 2.0, "memory": 1 << 20}, (Device("cpu:0", "x-4-cores", 1 << 30, (4, 5, 6, 7)),))
    assert own == Device("cpu:0", "x-2-cores", 1 << 20, (4, 5))
    same = adapt_allocation(bundle, devices)
    assert same.allocation.devices == devices
    assert same.allocation.placements == bundle.allocation.placements


def test_the_door_serves_a_fleet(
    router: ReplicaRouter, images: NDArray[np.uint8], truth: NDArray[np.float32], bundle: Bundle
) -> None:
    from ripieno.server import infer, start_in_thread

    with start_in_thread(router) as server:
        np.testing.assert_allclose(infer(server.url, images, batch=100), truth.mean(0), atol=1e-6)
