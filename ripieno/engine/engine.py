"""The ensemble engine (section 2.4): `Engine(bundle)` answers with every member, over the lanes of its allocation.

The life of a request: `submit` checks it and writes its images once into the ring (`memory`); the ring's bookkeeping
(`ring`) gives every lane with nothing to do the next batch of one of its members; a lane (`lane`, `crew`, and `worker`
for its process) predicts it; the last member to pass a run of samples has it combined (`combine`) and its slots freed;
the last run of a request resolves its future. `dispatch` ties these together, `supervisor` watches over the lanes.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import time
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ripieno import backends
from ripieno.engine.answer import Answer, LaneWork, Stats, Work
from ripieno.engine.crew import Load, Orders, Seat
from ripieno.engine.dispatch import Dispatcher, Patience
from ripieno.engine.inputs import check_images
from ripieno.engine.lane import Lane, ProcessLane, ThreadLane
from ripieno.engine.memory import Memory
from ripieno.engine.request import Plan, Request
from ripieno.engine.ring import Post, Ring
from ripieno.engine.supervisor import Supervisor
from ripieno.errors import EngineBusyError, EngineError
from ripieno.library.bundle import model_path, read_bundle
from ripieno.types import Bundle, Device, Placement

Isolation = Literal["auto", "thread", "process"]
AHEAD = 0.002
"""Seconds of work a lane process holds beside its running task, so that short tasks need not wait for a hand-over."""
RING_BYTES = 64 << 20
"""Most bytes of samples in a ring whose capacity is not given, unless four batches take more."""
RING_SAMPLES = 4096
"""Most samples in a ring whose capacity is not given."""

_open: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """A bundle's ensemble, loaded and answering; thread-safe. Use it in a `with` block, or `close` it.

    `isolation` puts lanes in threads of this process or in processes of their own (`auto`: threads). The ring holds
    `capacity` samples; a batch waits at most `max_delay` seconds to fill (0: a lane takes what is there). With
    `min_members`, requests are answered without members that keep dying, flagged, while so many remain.

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
        patience: Patience | None = None,
        load: Load = backends.load,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        if isolation not in ("auto", "thread", "process"):
            raise EngineError(f"no isolation {isolation!r}; there are: auto, thread, process")
        self.isolation: Literal["thread", "process"] = "process" if isolation == "process" else "thread"
        self._indices = {member: i for i, member in enumerate(self.bundle.ensemble.members)}
        groups = _lanes(self.bundle)
        posts = [[self._post(p) for p in group] for group in groups]
        largest = max(post.batch_size for lane in posts for post in lane)
        ring = Ring(
            capacity or _capacity(self.bundle, largest),
            len(self._indices),
            posts,
            ahead=AHEAD if self.isolation == "process" else 0.0,
            max_delay=max_delay,
            deaths=(patience or Patience()).deaths,
        )
        self._memory = Memory(
            ring.capacity,
            len(self._indices),
            len(self.bundle.classes),
            self.bundle.input,
            shared=self.isolation == "process",
        )
        self._ring = ring
        self._supervisor = Supervisor(lambda error: self._dispatcher.panic(error))
        self._dispatcher = Dispatcher(
            self.bundle.ensemble, ring, self._memory, self._supervisor, patience or Patience(), min_members
        )
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._closed = False
        self._lanes: list[Lane] = [
            self._lane(index, self._orders(group, groups), load) for index, group in enumerate(groups)
        ]
        self._groups = groups
        self._supervisor.start()
        self._dispatcher.start(self._lanes)
        _open.add(self)
        try:
            self._dispatcher.started.wait()
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
    ) -> Future[Answer]:
        """Ask for the answer to `images` (samples, *input.shape) of the bundle's dtype; returns when they are copied.

        `members` asks some only, by id; `spread` and `each` ask for more in the answer. A full ring blocks, at most
        `timeout` seconds (0: not at all; then the request must fit whole). `deadline` seconds from now the future
        fails with EngineTimeoutError or, with `partial`, is answered by the members that finished.

        Raises EngineError for wrong images or members, EngineBusyError when there was no room in time.
        """
        array = check_images(images, self.bundle.input)
        request = Request(len(array), self._plan(members, spread, each), len(array))
        dispatcher = self._dispatcher
        if not len(array):
            request.resolve(self._empty(request.plan))
            return request.future
        if deadline is not None:
            self._supervisor.at(time.monotonic() + deadline, lambda: dispatcher.expire(request, partial))
            timeout = deadline if timeout is None else min(timeout, deadline)
        request.future.dropped = lambda: dispatcher.drop(request)
        dispatcher.admit(request, array, timeout)
        return request.future

    def predict(self, images: Any, members: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Probabilities (samples, classes) of `images`; waits for room and for the answer. Raises as `submit`."""
        return self.submit(images, members).result().probabilities

    async def answer(self, images: Any, members: Sequence[str] | None = None, **options: Any) -> Answer:
        """`submit` for asyncio: waits for room in a thread, for the answer in the event loop."""
        try:
            future = self.submit(images, members, **{**options, "timeout": 0.0})
        except EngineBusyError:
            if options.get("timeout") == 0:
                raise
            future = await asyncio.to_thread(self.submit, images, members, **options)
        return await asyncio.wrap_future(future)

    # state

    @property
    def ready(self) -> bool:
        """Whether every lane is up."""
        return not self._closed and all(state.up for state in self._dispatcher.states)

    def stats(self) -> Stats:
        """What was done since the start."""
        dispatcher = self._dispatcher
        lanes = []
        for lane, state, group in zip(self._lanes, dispatcher.states, self._groups, strict=True):
            pid = lane.pid if isinstance(lane, ProcessLane) else os.getpid()
            first = group[0]
            lanes.append(LaneWork(*_work(state.work), first.device, first.lane, state.up, state.restarts, pid))
        members = {m: Work(*_work(w)) for m, w in zip(self._indices, dispatcher.member_work, strict=True)}
        return Stats(
            **dispatcher.counts,
            pending=dispatcher.pending,
            capacity=self._ring.capacity,
            combining=dispatcher.combining,
            members=members,
            lanes=tuple(lanes),
        )

    def close(self, drain: bool = True, timeout: float | None = None) -> None:
        """Stop: with `drain`, after the requests in flight are answered (at most `timeout` seconds). Idempotent."""
        if self._closed:
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
        for lane in self._lanes:
            lane.close()

    def _plan(self, members: Iterable[str] | None, spread: bool, each: bool) -> Plan:
        key = (None if members is None else tuple(members), spread, each)
        if plan := self._plans.get(key):
            return plan
        names = tuple(self._indices) if members is None else tuple(members)
        unknown = [m for m in names if m not in self._indices]
        if unknown or not names or len(set(names)) < len(names):
            wrong = f"no member {unknown[0]!r}" if unknown else "members must be named once each, at least one"
            raise EngineError(f"{wrong}; there are: {', '.join(self._indices)}")
        self._plans[key] = Plan(tuple(sorted(self._indices[m] for m in names)), spread, each)
        return self._plans[key]

    def _empty(self, plan: Plan) -> Answer:
        names = tuple(self.bundle.ensemble.members[m] for m in plan.members)
        none = np.empty((0, len(self.bundle.classes)), np.float32)
        each = np.empty((len(names), *none.shape), np.float32) if plan.each else None
        return Answer(none, names, False, none[:, 0] if plan.spread else None, each)

    def _post(self, placement: Placement) -> Post:
        """On a processor small batches cost little, so tasks may be cut for balance; on a GPU they do not pay."""
        member = self._indices[placement.member]
        small = placement.device.startswith("cpu")
        return Post(member, placement.batch_size, 8 if small else placement.batch_size)

    def _orders(self, group: Sequence[Placement], groups: Sequence[Sequence[Placement]]) -> Orders:
        """A lane's share of its device: its cores divided by the lanes on it."""
        device = _device(self.bundle, group[0].device)
        beside = [g[0].lane for g in groups if g[0].device == device.name]
        place = beside.index(group[0].lane)
        number = len(device.cores or os.sched_getaffinity(0)) if device.type == "cpu" else 1
        threads = max(1, number // len(beside))
        wheel = device.cores * (threads * len(beside))
        cores = wheel[place * threads : (place + 1) * threads]
        members = {member.id: member for member in self.bundle.members}
        seats = tuple(
            Seat(self._indices[p.member], members[p.member], model_path(self.bundle, p.member)) for p in group
        )
        return Orders(self.bundle.backend, device, threads, cores, seats)

    def _lane(self, index: int, orders: Orders, load: Load) -> Lane:
        if self.isolation == "thread":
            return ThreadLane(index, orders, load, self._memory, self._dispatcher)
        return ProcessLane(
            index, orders, load, self._memory, self._dispatcher, supervisor=self._supervisor, input=self.bundle.input
        )


def _work(numbers: Sequence[float]) -> tuple[int, int, float, float]:
    return int(numbers[0]), int(numbers[1]), numbers[2], numbers[3]


def _device(bundle: Bundle, name: str) -> Device:
    for device in bundle.allocation.devices:
        if device.name == name:
            return device
    known = ", ".join(device.name for device in bundle.allocation.devices)
    raise EngineError(f"the allocation uses {name}, which is none of its devices ({known}): allocate again")


def _lanes(bundle: Bundle) -> list[list[Placement]]:
    """Placements by (device, lane). Raises EngineError when members and placements do not match."""
    groups: dict[tuple[str, int], list[Placement]] = {}
    for placement in bundle.allocation.placements:
        if placement.member not in bundle.ensemble.members:
            raise EngineError(f"the allocation places {placement.member}, which is no member: allocate again")
        if placement.batch_size < 1:
            raise EngineError(f"{placement.member} has batch size {placement.batch_size}, must be at least 1")
        group = groups.setdefault((placement.device, placement.lane), [])
        if all(placement.member != other.member for other in group):  # twice in one lane is once
            group.append(placement)
    placed = {p.member for p in bundle.allocation.placements}
    if missing := [m for m in bundle.ensemble.members if m not in placed]:
        raise EngineError(f"member {missing[0]} has no place in the allocation: allocate again")
    return [groups[key] for key in sorted(groups)]


def _capacity(bundle: Bundle, largest: int) -> int:
    row = int(np.prod(bundle.input.shape)) * np.dtype(bundle.input.dtype).itemsize
    fitting = min(RING_SAMPLES, RING_BYTES // row) // largest * largest
    return max(fitting, 4 * largest)


@atexit.register
def _close_all() -> None:
    """Lanes in threads must not be inside a backend while the interpreter is torn down."""
    for engine in list(_open):
        engine.close(drain=False)
