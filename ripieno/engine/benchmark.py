"""Benchmarks: `bench` measures a bundle, `AllocationBenchmark` many allocations quickly, for the allocator.

Algorithm 1, line 2: "bench instantiates the pipeline with the given allocation settings on the fake images and returns
the performance metrics".
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ripieno import backends
from ripieno.backends import Backend
from ripieno.backends.backend_id import file_of
from ripieno.backends.network_part import NetworkPart
from ripieno.data.pixels import random_images
from ripieno.durations import check_duration
from ripieno.engine.config import Isolation
from ripieno.engine.engine import Engine
from ripieno.engine.inference_result import Answer, MemberStats, Stats, WorkerStats
from ripieno.engine.inputs import check_images
from ripieno.engine.model_runner import Load, with_trusted
from ripieno.engine.open_loop import Latency, measure_latency
from ripieno.errors import EngineError
from ripieno.types import Allocation, Bundle, Device, Ensemble, Input, Member, Placement

W = TypeVar("W", bound=MemberStats)
_Kind = tuple[str, str, int, str, frozenset[int]]
"""Key of a loaded member or backbone: its id, device, threads, backend, and the cores of the worker that loaded it."""
WINDOWS = 4
"""Number of equal parts of the measured time; the spread is computed from them."""


@dataclass(frozen=True)
class BenchResult:
    """Result of a benchmark."""

    throughput: float
    """samples per second"""
    spread: float
    """relative width of plus and minus one standard error of the throughput, from `WINDOWS` windows"""
    p50: float
    """median seconds from the submission of a request to its answer"""
    p99: float
    batch: int
    """samples per request"""
    in_flight: int
    """number of requests outstanding at any time"""
    seconds: float
    """measured time"""
    lanes: tuple[WorkerStats, ...]
    """work of each worker in the measured time"""
    members: Mapping[str, MemberStats]
    combining: float
    """seconds spent combining in the measured time"""
    asked: float = 0.0
    """mean number of members that predicted a sample; a cascade lowers it"""

    def shares(self, placements: Sequence[Placement]) -> tuple[float, ...]:
        """Return the share of the measured time in which each of `placements` computed."""
        computing = {(m, worker.device, worker.lane): s for worker in self.lanes for m, s in worker.seats.items()}
        return tuple(computing.get((p.member, p.device, p.lane), 0.0) / self.seconds for p in placements)

    def filled(self, placements: Sequence[Placement]) -> float:
        """Return the mean batch size of the member that computed most, as a share (0..1) of the size in `placements`.

        If the member is placed with several batch sizes, the smallest counts.
        """
        busiest = max(self.members, key=lambda m: self.members[m].computing)
        work = self.members[busiest]
        planned = min(p.batch_size for p in placements if p.member == busiest)
        return min(1.0, work.samples / max(1, work.batches) / planned)


def bench(
    bundle: str | Path | Bundle,
    *,
    seconds: float = 1.0,
    batch: int = 64,
    in_flight: int | None = None,
    images: NDArray[np.generic] | None = None,
    isolation: Isolation = "auto",
    engine: Engine | None = None,
    trusted: Sequence[str] = (),
    load: Load = backends.load,
    seed: int = 0,
) -> BenchResult:
    """Measure a bundle (or a running `engine`) for `seconds`, with `in_flight` requests of `batch` samples outstanding.

    `images` (samples, *input.shape) are sent in turn; the default is random images, as in algorithm 1. The default
    `in_flight` is enough to keep every worker in full batches. Measuring begins once `in_flight` requests were
    answered, and ends after `seconds` or, if requests take longer, after a few answers. `isolation` and `trusted` are
    those of `Engine`. Raises as `Engine`, and EngineError if `seconds`, `batch` or `in_flight` is not above 0.
    """
    seconds = check_duration(seconds, "seconds", error=EngineError)
    for name, value in (("batch", batch), ("in_flight", 1 if in_flight is None else in_flight)):
        if value < 1:
            raise EngineError(f"{name} {value} must be at least 1")
    own = nullcontext(engine) if engine else Engine(bundle, isolation=isolation, trusted=trusted, load=load)
    with own as running:
        requests = _make_requests(running, batch, images, seed)
        outstanding = in_flight or _default_in_flight(running, batch)
        done, begin, before, after = _run_load(running, requests, outstanding, seconds)
    times = [when for when, _ in done]
    # an answer after the end of a window counts by the share of its time that fell inside the window
    edges = np.linspace(begin, max(begin + seconds, times[-outstanding - 1]), WINDOWS + 1)
    reached = np.interp(edges, times, batch * np.arange(1, len(times) + 1))
    speeds = np.diff(reached) / np.diff(edges)
    mean = float(speeds.mean())
    error = float(speeds.std(ddof=1) / np.sqrt(WINDOWS) / mean) if mean else 0.0
    p50, p99 = (float(q) for q in np.percentile([latency for when, latency in done if when > begin], [50, 99]))
    workers = tuple(_difference(a, b) for a, b in zip(after.lanes, before.lanes, strict=True))
    members = {m: _difference(after.members[m], before.members[m]) for m in after.members}
    combining = after.combining - before.combining
    took = float(edges[-1] - begin)
    seen = [work.samples for work in members.values()]
    asked = sum(seen) / max(*seen, 1)  # the first member of a cascade sees every sample
    return BenchResult(mean, 2 * error, p50, p99, batch, outstanding, took, workers, members, combining, asked)


class AllocationBenchmark:
    """Benchmark of allocations of one ensemble before its bundle exists; the allocator's `bench` argument.

    `paths` holds one file of each member; files of other backends are in the same folder. `chosen` holds the backends
    by member and device that differ from `backend`. Members stay loaded between benchmarks, so that a benchmark of a
    similar allocation costs little more than its `seconds`; `close` (or the `with` block) frees them.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        members: Mapping[str, Member],
        paths: Mapping[str, Path],
        backend: str = "onnx",
        *,
        chosen: Mapping[str, Mapping[str, str]] | None = None,
        seconds: float = 0.3,
        batch: int = 16,
        trusted: Sequence[str] = (),
        load: Load = backends.load,
    ) -> None:
        first = members[ensemble.members[0]]
        seconds = check_duration(seconds, "seconds", error=EngineError)
        self._members = tuple(members[m] for m in ensemble.members)
        self._ensemble, self._backend, self._seconds, self._batch = ensemble, backend, seconds, batch
        self._chosen = chosen or {}
        self._input: Input = first.input
        self._task = first.task
        self._pool = BackendPool(paths, file_of(backend), with_trusted(load, trusted))

    def __call__(self, allocation: Allocation) -> float:
        """Return the throughput of an allocation in samples per second."""
        return self.measure(allocation).throughput

    def measure(self, allocation: Allocation) -> BenchResult:
        """Return the complete result. Raises EngineError when a member cannot be loaded."""
        return bench(
            self._bundle(allocation), seconds=self._seconds, batch=self._batch, isolation="thread", load=self._pool.load
        )

    def latency(self, allocation: Allocation, rate: float) -> Latency:
        """Return the latency of single samples at an arrival rate of `rate` a second. Raises as `measure`."""
        with Engine(self._bundle(allocation), isolation="thread", load=self._pool.load) as engine:
            return measure_latency(engine, rate, self._seconds)

    def _bundle(self, allocation: Allocation) -> Bundle:
        own = self._ensemble, allocation, self._members, self._input, self._task, self._backend
        return Bundle(*own, chosen=self._chosen)

    def close(self) -> None:
        """Free all members."""
        self._pool.close()

    def __enter__(self) -> AllocationBenchmark:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class BackendPool:
    """Pool of loaded members, each leased to one worker at a time; its `load` replaces `backends.load`."""

    def __init__(self, paths: Mapping[str, Path], usual: str, load: Load) -> None:
        self._paths, self._usual, self._load = paths, usual, load
        self._free: dict[_Kind, list[Backend]] = {}
        self._lock = threading.Lock()

    def load(
        self, backend: str, path: Path, member: Member, device: Device, threads: int, part: NetworkPart = "whole"
    ) -> Backend:
        """Return a free member, or a `part` of it, or load it; closing it returns it to the pool."""
        owner = member.backbone if part == "backbone" else member.id
        # its threads stay pinned to their first cores: leased to another worker, it would compute on the wrong ones
        key = (owner, device.name, threads, backend, frozenset(os.sched_getaffinity(0)))
        with self._lock:
            free = self._free.setdefault(key, [])
            loaded = free.pop() if free else None
        file = self._paths[member.id]
        # the bundle of a benchmark has no folder: only the file name identifies the backend
        file = file if path.name == self._usual else file.with_name(path.name)
        options = {} if part == "whole" else {"part": part}
        loaded = loaded or self._load(backend, file, member, device, threads, **options)
        return _Leased(loaded, lambda: self._take_back(key, loaded))

    def close(self) -> None:
        """Free all members."""
        with self._lock:
            for loaded in [loaded for free in self._free.values() for loaded in free]:
                loaded.close()
            self._free.clear()

    def _take_back(self, key: _Kind, loaded: Backend) -> None:
        with self._lock:
            self._free.setdefault(key, []).append(loaded)


class _Leased:
    """Backend that returns to its pool when it is closed."""

    def __init__(self, backend: Backend, give_back: Callable[[], None]) -> None:
        self.infer = backend.infer
        self.close = give_back


def _make_requests(
    engine: Engine, batch: int, images: NDArray[np.generic] | None, seed: int
) -> list[NDArray[np.generic]]:
    """Return a few different requests."""
    if images is None:
        images = random_images(engine.bundle.input, max(batch, 8), seed)
    images = check_images(images, engine.bundle.input)
    if not len(images):
        raise EngineError("No samples to send. Pass at least one.")
    if len(images) < batch:
        images = np.concatenate([images] * -(-batch // len(images)))
    return [images[i : i + batch] for i in range(0, len(images) - batch + 1, batch)]


def _default_in_flight(engine: Engine, batch: int) -> int:
    """Return the number of requests that keeps every worker in full batches.

    It covers twice the samples that all workers take at once. On CPUs the ring cuts a batch to half of a worker's share
    of the waiting samples. There, in addition to the samples that the workers hold, half of that share must be a full
    batch of the largest size.
    """
    allocation = engine.bundle.allocation
    twice = -(-2 * sum(p.batch_size for p in allocation.placements) // len(engine.bundle.ensemble.members))
    processors = {d.name for d in allocation.devices if d.type == "cpu"}
    cut = [p for p in allocation.placements if p.device in processors]
    workers = len({(p.device, p.lane) for p in cut})
    samples = max(twice, 3 * workers * max((p.batch_size for p in cut), default=0))
    return max(2, -(-samples // batch) + 1)


def _run_load(
    engine: Engine, requests: list[NDArray[np.generic]], in_flight: int, seconds: float
) -> tuple[list[tuple[float, float]], float, Stats, Stats]:
    """Keep `in_flight` requests outstanding, for `seconds` after the first `in_flight` were answered.

    Returns four values: (time of answer, latency) of each request, by time of answer; the time at which measuring
    began; the stats of the engine at that time; its stats before the last `in_flight` requests were answered.
    """
    answers: queue.SimpleQueue[tuple[float, float, Future[Answer]]] = queue.SimpleQueue()
    done: list[tuple[float, float]] = []
    images = itertools.cycle(requests)

    def send() -> None:
        at = time.perf_counter()
        future = engine.submit(next(images))
        future.add_done_callback(lambda answered: answers.put((time.perf_counter(), at, answered)))

    def receive() -> None:
        when, at, future = answers.get()
        if error := future.exception():
            raise EngineError(f"A request failed: {error}") from error
        done.append((when, when - at))

    for _ in range(in_flight):
        send()
    began, before, enough = float("inf"), engine.stats(), 0
    while len(done) < enough or not done or done[-1][0] < began + seconds:
        receive()
        if len(done) == in_flight:
            began, before, enough = time.perf_counter(), engine.stats(), len(done) + 2 * WINDOWS
        send()
    after = engine.stats()
    for _ in range(in_flight):
        receive()
    return sorted(done), began, before, after


def _difference(after: W, before: W) -> W:
    names = ("batches", "samples", "waiting", "computing", "combining")
    work = dataclasses.replace(after, **{name: getattr(after, name) - getattr(before, name) for name in names})
    if isinstance(work, WorkerStats) and isinstance(before, WorkerStats):
        return dataclasses.replace(work, seats={m: s - before.seats[m] for m, s in work.seats.items()})
    return work
