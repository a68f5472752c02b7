"""The ensemble engine (section 2.4): `Engine(bundle)` answers with every member, over the lanes of its allocation.

The life of a request: `submit` checks it and writes its images once into the ring (`memory`); the ring's bookkeeping
(`ring`) gives every lane with nothing to do the next batch of one of its members; a lane (`lane`, `crew`, and `worker`
for its process) predicts it; the last member to pass a run of samples has it combined (`combine`) and its slots freed;
the last run of a request resolves its future. `dispatch` ties these together, `supervisor` watches over the lanes.
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
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ripieno import backends
from ripieno.durations import check_duration
from ripieno.engine.dispatch import Dispatcher
from ripieno.engine.health import HealthMonitor, RestartPolicy
from ripieno.engine.inference_result import Answer, Stats, WorkerStats
from ripieno.engine.inputs import check_images
from ripieno.engine.layout import (
    capacity_of,
    check_free_memory,
    instance_config,
    isolation_of,
    worker_config,
    workers_of,
)
from ripieno.engine.memory import Memory
from ripieno.engine.model_runner import Load, WorkerConfig, load_name
from ripieno.engine.plan_cache import PlanCache
from ripieno.engine.process import ProcessWorker
from ripieno.engine.request import Request
from ripieno.engine.ring import Ring
from ripieno.engine.supervisor import Supervisor
from ripieno.engine.trace import InferenceStep
from ripieno.engine.worker import ThreadWorker, Worker
from ripieno.errors import EngineError
from ripieno.library.bundle import read_bundle
from ripieno.types import Bundle, Cascade

Isolation = Literal["auto", "thread", "process"]
AHEAD = {"thread": 0.0002, "process": 0.002}
"""Seconds of work a lane holds beside its running task, so that short tasks need not wait for a hand-over."""
_open: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """A bundle's ensemble, loaded and answering; thread-safe. Use it in a `with` block, or `close` it.

    `isolation` puts lanes in threads of this process, which need less memory, or in processes of their own, which
    survive crashes of a backend (`auto`: threads, but processes for several lanes of PyTorch on a processor). The ring
    holds `capacity` samples; a batch waits at most `max_delay` seconds to fill (0: a lane takes what is there). With
    `min_members`, requests are answered without members that keep dying, flagged, while so many remain. `cascade` is by
    default that of the bundle, where it has one; False asks all members. `trusted` names the user's own families
    (`module:function`) that the PyTorch backend may import.

    Raises LibraryError when `bundle` is none, EngineError when a member cannot be loaded or the allocation is wrong.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        isolation: Isolation = "auto",
        capacity: int | None = None,
        max_delay: float = 0.0,
        min_members: int | None = None,
        cascade: Cascade | bool = True,
        trusted: Sequence[str] = (),
        patience: RestartPolicy | None = None,
        load: Load = backends.load,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        if isolation not in ("auto", "thread", "process"):
            raise EngineError(f"no isolation {isolation!r}; there are: auto, thread, process")
        max_delay = check_duration(max_delay, "max_delay", zero=True, error=EngineError)
        self.cascade = cascade if isinstance(cascade, Cascade) else self.bundle.cascade if cascade else None
        self._plans = PlanCache(self.bundle, self.cascade)
        self._indices = self._plans.indices
        patience = patience or RestartPolicy()
        groups = workers_of(self.bundle)
        self.isolation = isolation if isolation != "auto" else isolation_of(self.bundle, len(groups))
        orders = [worker_config(self.bundle, group, groups, trusted) for group in groups]
        check_free_memory(self.bundle, self.isolation)
        if self.isolation == "process":
            load_name(load)  # refuse what cannot be found from another process before anything is opened
        posts = [[instance_config(self.bundle, p) for p in group] for group in groups]
        largest = max(post.batch_size for lane in posts for post in lane)
        ring = Ring(
            capacity or capacity_of(self.bundle, largest),
            len(self._indices),
            posts,
            ahead=AHEAD[self.isolation],
            second=self.isolation == "process",
            max_delay=max_delay,
            deaths=patience.deaths,
        )
        self._memory = Memory(
            ring.capacity,
            len(self._indices),
            len(self.bundle.classes),
            self.bundle.input,
            shared=self.isolation == "process",
        )
        self._ring = ring
        self._supervisor = Supervisor(lambda error: self._dispatcher.fail(error))
        # a thread's share of this process nobody knows, a GPU's memory its driver watches
        caps = [o.memory_limit if self.isolation == "process" and o.device.type == "cpu" else 0 for o in orders]
        self._watch = HealthMonitor(
            [tuple(post.member for post in lane) for lane in posts], patience, self._supervisor, caps
        )
        self._dispatcher = Dispatcher(
            self.bundle.ensemble, ring, self._memory, self._supervisor, self._watch, min_members
        )
        self._closed = False
        self._is_foreign = False
        self._lanes: list[Worker] = [self._lane(index, own, load) for index, own in enumerate(orders)]
        self._groups = groups
        self._supervisor.start()
        self._dispatcher.start(self._lanes)
        _open.add(self)
        try:
            self._dispatcher.settled.wait()
        except BaseException:
            self.close(drain=False)
            raise
        if self._dispatcher.refusal:
            self.close(drain=False)
            raise EngineError(self._dispatcher.refusal)

    # requests

    def submit(
        self,
        images: Any,
        members: Sequence[str] | None = None,
        *,
        spread: bool = False,
        each: bool = False,
        timeout: float | None = None,
        deadline: float | None = None,
        partial: bool = False,
        cascade: bool | None = None,
        steps: list[InferenceStep] | None = None,
        block: bool = True,
    ) -> Future[Answer]:
        """Ask for the answer to `images` (samples, *input.shape) of the bundle's dtype; returns when they are copied.

        Whatever `ripieno.data.prediction_inputs.read_inputs` reads (pictures, paths, data sets) is taken, too.
        `members` asks some only, by id; `spread` and `each` ask for more in the answer. A full ring blocks, at most
        `timeout` seconds (0: not at all; then the request must fit whole). Requests that wait get room by turns, those
        with the fewest samples left first, the oldest at least half of it. With `block` False the call returns at once
        and the request waits by itself: `images` must not change until it is answered. `deadline` seconds from now the
        future fails with EngineTimeoutError or, with `partial`, is answered by the members that finished. By the
        engine's cascade, if it has one, members are asked in turn, each only about samples that are not yet sure; not
        so where `members`, `spread` or `each` want them all, or with `cascade` False. `steps` is a list that takes what
        each member did about the request (`ripieno.engine.trace.Step`). Callbacks of the future run in a lane's or the
        engine's thread: keep them short, and do not wait in them.

        Raises EngineError for wrong images, members or times, EngineBusyError when there was no room in time.
        """
        if self._is_foreign:
            raise EngineError("This engine belongs to the parent process (os.fork). Open another one in this process.")
        if timeout is not None:
            timeout = check_duration(timeout, "timeout", zero=True, error=EngineError)
        if deadline is not None:
            deadline = check_duration(deadline, "deadline", zero=True, error=EngineError)
        array = check_images(images, self.bundle.input)
        plan = self._plans.find(members, spread, each, cascade)
        request = Request(len(array), plan, len(array))
        dispatcher = self._dispatcher
        if steps is not None:
            request.steps, dispatcher.traced = steps, True
        if not len(array):
            request.resolve(self._plans.nothing(plan))
            return request.future
        if deadline is not None:
            late = time.monotonic() + deadline
            request.timers = (self._supervisor.at(late, lambda: dispatcher.expire(request, partial)),)
            if block:
                timeout = deadline if timeout is None else min(timeout, deadline)
        request.future.dropped = lambda: dispatcher.drop(request)
        dispatcher.admit(request, array, timeout, block)
        return request.future

    @property
    def waiting(self) -> int:
        """Requests that wait for room in the ring."""
        return len(self._dispatcher.desk.queue)

    def predict(self, images: Any, members: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Probabilities (samples, classes) of `images`; waits for room and for the answer. Raises as `submit`."""
        return self.submit(images, members).result().probabilities

    async def answer(self, images: Any, members: Sequence[str] | None = None, **options: Any) -> Answer:
        """`submit` for asyncio: waits for room and for the answer in the event loop; cancelling it gives both up."""
        return await asyncio.wrap_future(self.submit(images, members, **options, block=False))

    # state

    @property
    def ready(self) -> bool:
        """Whether requests are taken and every lane is up."""
        return not self._closed and not self._dispatcher.desk.closed and self._watch.all_up

    def stats(self) -> Stats:
        """What was done since the start."""
        dispatcher = self._dispatcher
        lanes = []
        tally = dispatcher.desk.tally
        for index, (state, group) in enumerate(zip(self._watch.states, self._groups, strict=True)):
            seen = WorkerStats(
                **dataclasses.asdict(tally.lane(index)),
                device=group[0].device,
                lane=group[0].lane,
                up=state.up,
                restarts=state.restarts,
                process=self._lanes[index].process,
                seats={p.member: tally.computing(index, self._indices[p.member]) for p in group},
            )
            lanes.append(seen)
        return Stats(
            requests=tally.requests,
            samples=tally.samples,
            partial=tally.partial,
            failed=tally.failed,
            pending=dispatcher.desk.pending,
            capacity=self._ring.capacity,
            combining=tally.combining,
            members={member: tally.member(index) for member, index in self._indices.items()},
            lanes=tuple(lanes),
        )

    def close(self, drain: bool = True, timeout: float | None = None) -> None:
        """Stop: with `drain`, after the requests in flight are answered (at most `timeout` seconds). Idempotent."""
        if timeout is not None:
            timeout = check_duration(timeout, "timeout", zero=True, error=EngineError)
        if self._closed or self._is_foreign:
            return
        self._closed = True
        _open.discard(self)
        self._dispatcher.close(drain, timeout)
        self._supervisor.wait_for(self._close_lanes)
        until = time.monotonic() + 5.0
        for lane in self._lanes:
            lane.join(until)
        self._supervisor.stop()  # last, because lane processes die with its thread
        self._memory.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    # inner

    def _close_lanes(self) -> None:
        self._watch.end()
        for lane in self._lanes:
            lane.close()

    def _lane(self, index: int, orders: WorkerConfig, load: Load) -> Worker:
        if self.isolation == "thread":
            return ThreadWorker(index, orders, load, self._memory, self._dispatcher)
        return ProcessWorker(
            index, orders, load, self._memory, self._dispatcher, supervisor=self._supervisor, input=self.bundle.input
        )


def _disown_all() -> None:
    """Mark the engines of the parent in a forked child: a fork has no threads, and waiting for them would never end."""
    if not _open:
        return
    for engine in list(_open):
        engine._is_foreign = True
    _open.clear()
    # a backend's own exit handlers wait for its threads, too: leave without them (on_exit runs the last one first)
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such call
        libc = ctypes.CDLL(None)
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


os.register_at_fork(after_in_child=_disown_all)


@atexit.register
def _close_all() -> None:
    """Lanes in threads must not be inside a backend while the interpreter is torn down."""
    for engine in list(_open):
        engine.close(drain=False)
