"""A pool of Ray actors: slots on every machine of a cluster, which may join and leave while it works.

Theory of operation. A slot is an actor, pinned to the node whose resources it takes. One thread of ours lives by a
queue of events: a job is submitted, an actor has answered or died, or nothing happened for a moment. It hands the
oldest job to an idle slot and, every `LOOK_SECONDS`, compares the cluster with its slots: each living node has as many
as fit in its resources. A slot that is not yet up gets no job, so a node that is dead, which Ray may go on listing for
several seconds, costs none. When an actor dies its job goes back to the head of the queue, as often as
:mod:`ripieno.cluster.deaths` allows: what died with its node, or on one that is gone since, is not the job's fault. The
function travels once, into the object store, and what
it holds (arrays too) is mapped from there by all actors of a machine, not copied.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ripieno.cluster.actor import Actor
from ripieno.cluster.deaths import Deaths, Progress, unseen
from ripieno.cluster.local import check_importable
from ripieno.cluster.pool import Function
from ripieno.cluster.results import Results, hung, placed, seconds_of, starved
from ripieno.cluster.worker import failure
from ripieno.errors import SearchError, need
from ripieno.types import Failure, Job, Outcome

LOOK_SECONDS = 1.0
"""How often the cluster's nodes are looked at."""


@dataclass(eq=False)
class _Slot:
    number: int
    node: str
    actor: Any
    log: str
    state: Literal["starting", "idle", "busy", "gone"] = "starting"
    job: Job | None = None
    since: float = 0.0


class RayPool:
    """Jobs as tasks of Ray actors, as many as fit on the cluster's nodes while they join and leave.

    `address` is "local" (a cluster of this machine, started for the pool and ended with it; `slots` bounds it), or that
    of a running cluster, "auto" for the one on this machine; a connection the caller made to Ray is used as it is. Each
    slot takes `cpus`, `gpus` and `memory` (bytes) of one node; a fraction of a GPU shares it, by bookkeeping only.
    `function` must be importable by name on all nodes, and what it writes must reach a folder that they share, where
    with `logs` what actors write goes too, to `logs/slot-0.log` and so on. A job
    that takes longer than `limit` seconds for each of its epochs is ended and not tried again; one that kills its
    workers is a failure when it does so without `progress`.

    Raises MissingExtraError without Ray, SearchError when `function` is not importable, when the cluster cannot be
    reached, or when no node has room for a slot.
    """

    def __init__(
        self,
        function: Function,
        address: str = "local",
        *,
        slots: int | None = None,
        cpus: float = 1,
        gpus: float = 0,
        memory: int | None = None,
        logs: Path | None = None,
        limit: float | None = None,
        progress: Progress = unseen,
    ) -> None:
        check_importable(function)
        self._ray = need("ray")
        if cpus <= 0 or gpus < 0:
            raise SearchError(f"slots of {cpus:g} CPUs and {gpus:g} GPUs: CPUs must be more than 0, GPUs not negative")
        self._needs = {"CPU": cpus, "GPU": gpus, "memory": memory or 0}
        self._most = slots
        self._logs = logs
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
        self._limit = limit
        self._progress = progress
        self._owned = not self._ray.is_initialized()
        if self._owned:
            self._connect(address)
        self._function = self._ray.put(function)
        self._results = Results()
        self._events: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self._jobs: deque[Job] = deque()
        self._deaths: dict[str, Deaths] = {}  # of each running job
        self._slots: list[_Slot] = []
        self._numbers = 0
        self._closing = False
        self._looked = 0.0
        self._look()
        if not self._slots:
            self._disconnect()
            raise SearchError(
                f"no node of the Ray cluster has {cpus:g} CPUs, {gpus:g} GPUs and {memory or 0} bytes: ask for less"
            )
        self._thread = threading.Thread(target=self._serve, name="ray-pool", daemon=True)
        self._thread.start()

    # the owner's side

    @property
    def slots(self) -> int:
        """How many slots there are now; at least one is said, so that a search waits for nodes to join."""
        return max(1, len(self._slots))

    def submit(self, job: Job) -> None:
        """Queue `job`."""
        assert not self._closing, "submit after close"
        self._results.expect()
        self._events.put(("job", job, None))

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """Outcomes of jobs that finished since the last call; see `Pool.wait`."""
        return self._results.wait(timeout)

    def close(self, cancel: bool = False) -> None:
        """Forget the queued jobs and end the slots; see `Pool.close`."""
        if self._thread.is_alive():
            self._closing = True
            self._events.put(("close", cancel, None))
            self._thread.join()
            self._disconnect()
        self._results.forget()

    # the thread's side

    def _serve(self) -> None:
        """Live by the events until closed."""
        while not (self._closing and all(slot.state != "busy" for slot in self._slots)):
            try:
                kind, what, future = self._events.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                kind, what, future = "", None, None
            if kind == "job":
                self._jobs.append(what)
            elif kind == "close":
                self._jobs.clear()
                if what:
                    break
            elif kind:
                self._answered(what, future)
            if time.monotonic() - self._looked > LOOK_SECONDS and not self._closing:
                self._look()
            self._end_hung()
            self._hand_out()
        for slot in self._slots:
            self._ray.kill(slot.actor)

    def _hand_out(self) -> None:
        for slot in self._slots:
            if not self._jobs:
                return
            if slot.state == "idle":
                slot.job, slot.state, slot.since = self._jobs.popleft(), "busy", time.time()
                if slot.job.member not in self._deaths:
                    self._deaths[slot.job.member] = Deaths(slot.job, self._progress)
                self._expect(slot, slot.actor.run.remote(slot.job))

    def _expect(self, slot: _Slot, reference: Any) -> None:
        """Make an event of the actor's answer."""
        reference.future().add_done_callback(lambda future: self._events.put(("answer", slot, future)))

    def _answered(self, slot: _Slot, future: Any) -> None:
        if slot.state == "gone":
            return
        error = future.exception()
        if isinstance(error, self._ray.exceptions.RayActorError):
            self._lost(slot, error)
        elif slot.job is not None:
            if error is None:
                outcome = placed(future.result(), slot.number, slot.log)
                if starved(outcome) and self._deaths[slot.job.member].again(slot.node, self._nodes()):
                    self._drop(slot)  # it may hold what is missing
                    self._again(slot.job)
                    return
            else:  # what cannot travel
                outcome = self._failed(slot, slot.job, failure("error", error))
            self._finish(slot.job, outcome)
            slot.job, slot.state = None, "idle"
        elif error is None:
            slot.state = "idle"
        else:
            self._drop(slot)

    def _lost(self, slot: _Slot, why: BaseException) -> None:
        """An actor died. Its job goes to the next free slot, unless it has killed too many."""
        self._drop(slot)
        if (job := slot.job) is None or self._closing:
            return
        deaths = self._deaths[job.member]
        if deaths.again(slot.node, self._nodes()):
            self._again(job)
        else:
            self._looked = 0.0
            lines = str(why).strip().splitlines()
            reason = next((line.strip() for line in lines if "exit" in line.lower()), lines[0])
            crash = Failure("crash", f"the worker died, {len(deaths)} times: {reason}", str(why), slot.log)
            self._finish(job, self._failed(slot, job, crash))

    def _again(self, job: Job) -> None:
        """Run `job` before all others, as soon as there is a slot: a new one is looked for at once."""
        self._jobs.appendleft(job)
        self._looked = 0.0

    def _failed(self, slot: _Slot, job: Job, why: Failure) -> Outcome:
        return Outcome(job, failure=why, slot=slot.number, started=slot.since, finished=time.time())

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self._deaths.pop(job.member, None)
        self._results.put(outcome)

    def _end_hung(self) -> None:
        for slot in list(self._slots):
            seconds = None if slot.job is None else seconds_of(slot.job, self._limit)
            if slot.job is not None and seconds is not None and time.time() - slot.since > seconds:
                self._finish(slot.job, self._failed(slot, slot.job, hung(slot.job, self._limit or 0.0, slot.log)))
                self._drop(slot)

    def _drop(self, slot: _Slot) -> None:
        slot.state = "gone"
        self._slots.remove(slot)
        self._ray.kill(slot.actor)

    # the cluster

    def _look(self) -> None:
        """Make slots on nodes that have room, drop those of nodes that are gone."""
        self._looked = time.monotonic()
        nodes = self._nodes()
        for slot in [slot for slot in self._slots if slot.node not in nodes]:
            self._lost(slot, RuntimeError("its node is gone"))
        for node, resources in nodes.items():
            room = min(int(resources.get(name, 0) / much + 1e-9) for name, much in self._needs.items() if much)
            there = sum(slot.node == node for slot in self._slots)
            for _ in range(room - there):
                if self._most is None or len(self._slots) < self._most:
                    self._start(node)

    def _nodes(self) -> dict[str, dict[str, float]]:
        """Resources of the living nodes."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def _start(self, node: str) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        log = "" if self._logs is None else str(self._logs.resolve() / f"slot-{self._numbers}.log")
        actor = (
            self._ray.remote(Actor)
            .options(
                num_cpus=self._needs["CPU"],
                num_gpus=self._needs["GPU"],
                memory=self._needs["memory"] or None,
                max_restarts=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote(sys.path, [self._function], log)
        )
        slot = _Slot(self._numbers, node, actor, log)
        self._numbers += 1
        self._slots.append(slot)
        self._expect(slot, actor.ready.remote())

    def _connect(self, address: str) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address == "local":
                processors = None if self._most is None else max(1, round(self._most * self._needs["CPU"]))
                self._ray.init(address="local", num_cpus=processors, include_dashboard=False, **quiet)
            else:
                self._ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            line = str(error).strip().splitlines()[0]
            raise SearchError(f'no Ray cluster at {address!r} ({line}): start one, or take address "local"') from error

    def _disconnect(self) -> None:
        if self._owned:
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(cancel=kind is not None)
