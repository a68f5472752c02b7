"""The ensemble engine (section 2.4): `Engine(bundle)` predicts with all members, on the workers of its allocation.

The life of a request:

1. `submit` checks the images and writes them once into the ring (`ring_memory`).
2. The ring's bookkeeping (`ring`) gives every idle worker the next batch of one of its units: a member, or the members
   that share a backbone.
3. A worker (`worker`, `process_worker`, `worker_main`) predicts the batch with its loaded models (`model_runner`).
4. When the last member has predicted a slice, its predictions are combined (`combiner`) and its slots are freed.
5. The last slice of a request resolves its future.

`dispatch` connects these parts; `event_loop` and `health_monitor` monitor the workers.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import dataclasses
import os
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import backends
from ripieno.config import update
from ripieno.durations import check_duration
from ripieno.engine.config import EngineConfig
from ripieno.engine.dispatch import Dispatcher
from ripieno.engine.event_loop import EventLoop
from ripieno.engine.health_monitor import HealthMonitor
from ripieno.engine.inference_result import Answer, InferenceStep, Stats, WorkerStats
from ripieno.engine.inputs import check_images
from ripieno.engine.model_runner import Load, WorkerConfig, load_name
from ripieno.engine.plan_cache import PlanCache
from ripieno.engine.process_worker import ProcessWorker
from ripieno.engine.request import Request
from ripieno.engine.ring import Ring
from ripieno.engine.ring_memory import Memory
from ripieno.engine.worker import ThreadWorker, Worker
from ripieno.engine.worker_config import (
    capacity_of,
    check_free_memory,
    instance_configs,
    isolation_of,
    units_of,
    worker_config,
    workers_of,
)
from ripieno.errors import EngineError
from ripieno.library.bundle import read_bundle
from ripieno.types import Bundle, Cascade

AHEAD = {"thread": 0.0002, "process": 0.002}
"""Seconds of queued work a worker holds in addition to its running task, so that short tasks follow at once."""
_open: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """The loaded ensemble of a bundle; thread-safe. Use it in a `with` block, or `close` it.

    `config` is an `EngineConfig`; its fields can also be passed as keywords: `isolation`, `capacity`, `max_delay`,
    `min_members`, `patience`. Workers in threads of this process need less memory, workers in their own processes
    survive crashes of a backend. `auto` uses threads, but processes for several PyTorch workers on a CPU. With
    `min_members`, requests are answered without members that keep dying, and marked as partial, while at least
    `min_members` remain. `cascade` defaults to that of the bundle, if it has one; False evaluates all members.
    `trusted` names the user's own families (`module:function`) that the PyTorch backend may import.

    Raises LibraryError when `bundle` is not a bundle, EngineError when a member cannot be loaded or the allocation is
    wrong.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        config: EngineConfig | None = None,
        *,
        cascade: Cascade | bool = True,
        trusted: Sequence[str] = (),
        load: Load = backends.load,
        **settings: Any,
    ) -> None:
        self.bundle = read_bundle(bundle, trusted)
        config = update(config or EngineConfig(), settings)
        self.cascade = cascade if isinstance(cascade, Cascade) else self.bundle.cascade if cascade else None
        units = units_of(self.bundle)
        self._plans = PlanCache(self.bundle, self.cascade, units)
        self._indices = self._plans.indices
        groups = workers_of(self.bundle)
        self.isolation = config.isolation if config.isolation != "auto" else isolation_of(self.bundle, len(groups))
        configs = [worker_config(self.bundle, group, groups) for group in groups]
        check_free_memory(self.bundle, self.isolation)
        if self.isolation == "process":
            load_name(load)  # fail before anything is opened if another process cannot import it
        instances = [instance_configs(self.bundle, group, units) for group in groups]
        largest = max(instance.batch_size for worker in instances for instance in worker)
        ring = Ring(
            config.capacity or capacity_of(self.bundle, largest),
            len(units),
            instances,
            ahead=AHEAD[self.isolation],
            second=self.isolation == "process",
            max_delay=config.max_delay,
            deaths=config.patience.deaths,
        )
        self._memory = Memory(
            ring.capacity,
            len(self._indices),
            self.bundle.task.output,
            self.bundle.input,
            shared=self.isolation == "process",
        )
        self._ring = ring
        self._event_loop = EventLoop(lambda error: self._dispatcher.fail(error))
        # the share of one thread cannot be measured; the driver limits the memory of a GPU
        limited = self.isolation == "process"
        memory_limits = [c.memory_limit if limited and c.device.type == "cpu" else 0 for c in configs]
        held = [tuple(instance.unit for instance in own) for own in instances]
        self._health = HealthMonitor(held, config.patience, self._event_loop, memory_limits)
        self._dispatcher = Dispatcher(
            self.bundle, units, ring, self._memory, self._event_loop, self._health, config.min_members
        )
        self._closed = False
        self._is_foreign = False
        self._workers: list[Worker] = [self._worker(index, own, load) for index, own in enumerate(configs)]
        self._groups = groups
        self._event_loop.start()
        self._dispatcher.start(self._workers)
        _open.add(self)
        try:
            self._dispatcher.settled.wait()
            if self._dispatcher.refusal:
                raise EngineError(self._dispatcher.refusal)
        except BaseException:
            self.close(drain=False)
            raise

    # requests

    def submit(
        self,
        images: Any,
        members: Sequence[str] | None = None,
        *,
        spread: bool = False,
        each: bool = False,
        disagreement: bool = False,
        timeout: float | None = None,
        deadline: float | None = None,
        partial: bool = False,
        cascade: bool | None = None,
        steps: list[InferenceStep] | None = None,
        block: bool = True,
    ) -> Future[Answer]:
        """Submit `images` (samples, *input.shape) of the bundle's dtype; return once they are copied.

        Everything that `ripieno.data.prediction_inputs.read_inputs` reads (pictures, paths, data sets) is accepted.
        `members` restricts the request to some members, by id; `spread`, `each` and `disagreement` add fields to the
        answer: `ripieno.tasks.uncertainty_outputs` derives further outputs from them.

        A full ring blocks for at most `timeout` seconds (0: not at all; then the whole request must fit). Waiting
        requests get room in turn: the one with the fewest samples left first, the oldest at least half of the room.
        With `block` False the call returns at once and the request waits in a queue: `images` must not change until
        it is answered. After `deadline` seconds the future fails with EngineTimeoutError or, with `partial`, gets the
        answer of the members that finished.

        If the engine has a cascade, members run in turn, each only on samples that are not yet sure. The cascade is
        not used with `members`, `spread`, `each` or `disagreement`, which need all members, or with `cascade` False.
        `steps` is a list to which the engine appends the work of each member
        (`ripieno.engine.inference_result.InferenceStep`).
        Callbacks of the future run in a thread of a worker or of the engine: keep them short, and do not wait in them.

        Raises EngineError for wrong images, members or times, EngineBusyError when there was no room in time.
        """
        if self._is_foreign:
            raise EngineError("This engine belongs to the parent process (os.fork). Open another one in this process.")
        if timeout is not None:
            timeout = check_duration(timeout, "timeout", zero=True, error=EngineError)
        if deadline is not None:
            deadline = check_duration(deadline, "deadline", zero=True, error=EngineError)
        array = check_images(images, self.bundle.input)
        plan = self._plans.find(members, spread, each, disagreement, cascade)
        request = Request(len(array), plan, len(array))
        dispatcher = self._dispatcher
        if steps is not None:
            request.steps, dispatcher.traced = steps, True
        if not len(array):
            request.resolve(self._plans.nothing(plan))
            return request.future
        if deadline is not None:
            late = time.monotonic() + deadline
            request.timers = (self._event_loop.at(late, lambda: dispatcher.expire(request, partial)),)
            if block:
                timeout = deadline if timeout is None else min(timeout, deadline)
        request.future.dropped = lambda: dispatcher.drop(request)
        dispatcher.admit(request, array, timeout, block)
        return request.future

    @property
    def waiting(self) -> int:
        """Number of requests that wait for room in the ring."""
        return len(self._dispatcher.request_table.queue)

    def predict(self, images: Any, members: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Return predictions (samples, *task.output) of `images`; wait for room and the answer. Raises as `submit`."""
        return self.submit(images, members).result().predictions

    async def answer(self, images: Any, members: Sequence[str] | None = None, **options: Any) -> Answer:
        """Submit from asyncio: await room and the answer in the event loop; cancelling gives up both."""
        return await asyncio.wrap_future(self.submit(images, members, **options, block=False))

    # state

    @property
    def ready(self) -> bool:
        """True if the engine accepts requests and every worker is up."""
        return not self._closed and not self._dispatcher.request_table.closed and self._health.all_up

    def stats(self) -> Stats:
        """Return the counters since the start."""
        dispatcher = self._dispatcher
        tally = dispatcher.request_table.tally
        workers = tuple(
            WorkerStats(
                **dataclasses.asdict(tally.worker(index)),
                device=group[0].device,
                lane=group[0].lane,
                up=state.up,
                restarts=state.restarts,
                process=self._workers[index].process,
                seats={p.member: tally.computing(index, self._indices[p.member]) for p in group},
            )
            for index, (state, group) in enumerate(zip(self._health.states, self._groups, strict=True))
        )
        return Stats(
            requests=tally.requests,
            samples=tally.samples,
            partial=tally.partial,
            failed=tally.failed,
            pending=dispatcher.request_table.pending,
            capacity=self._ring.capacity,
            combining=tally.combining,
            members={member: tally.member(index) for member, index in self._indices.items()},
            lanes=workers,
        )

    def close(self, drain: bool = True, timeout: float | None = None) -> None:
        """Stop the engine; with `drain`, answer requests in flight first (at most `timeout` seconds). Idempotent."""
        if timeout is not None:
            timeout = check_duration(timeout, "timeout", zero=True, error=EngineError)
        if self._closed or self._is_foreign:
            return
        self._closed = True
        _open.discard(self)
        self._dispatcher.close(drain, timeout)
        self._event_loop.wait_for(self._close_workers)
        until = time.monotonic() + 5.0
        for worker in self._workers:
            worker.join(until)
        self._event_loop.stop()  # last, because worker processes die with its thread
        self._memory.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close(drain=kind is None)

    # inner

    def _close_workers(self) -> None:
        self._health.end()
        for worker in self._workers:
            worker.close()

    def _worker(self, index: int, configs: WorkerConfig, load: Load) -> Worker:
        if self.isolation == "thread":
            return ThreadWorker(index, configs, load, self._memory, self._dispatcher)
        return ProcessWorker(
            index, configs, load, self._memory, self._dispatcher, event_loop=self._event_loop, input=self.bundle.input
        )


def _mark_foreign() -> None:
    """Mark the engines of the parent in a forked child: a fork has no threads, so waiting for them would never end."""
    if not _open:
        return
    for engine in list(_open):
        engine._is_foreign = True
    _open.clear()
    # exit handlers of a backend also wait for its threads: skip them (on_exit runs the last handler first)
    with contextlib.suppress(AttributeError, OSError):  # other C libraries have no on_exit
        libc = ctypes.CDLL(None)
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


os.register_at_fork(after_in_child=_mark_foreign)


@atexit.register
def _close_all() -> None:
    """Close all engines: no worker thread may be in a backend while the interpreter shuts down."""
    for engine in list(_open):
        engine.close(drain=False)
