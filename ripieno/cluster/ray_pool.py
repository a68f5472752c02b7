"""A pool of Ray actors: slots on every machine of a cluster, which may join and leave while it works.

Theory of operation. A slot is an actor, pinned to the node whose resources it takes. One thread of ours lives by a
queue of events: a job is submitted, an actor has answered or died, or nothing happened for a moment. It hands the
oldest job to an idle slot and, every `LOOK_SECONDS`, compares the cluster with its slots: each living node has as many
as fit in its resources. A slot that is not yet up gets no job, so a node that is dead, which Ray may go on listing for
several seconds, costs none. When an actor dies its job goes back to the head of the queue, as often as
:mod:`ripieno.cluster.retries` allows: what died with its node, or on one that is gone since, is not the job's fault. A
node on which actors only die as they start gets no more of them; when that is every node, or Ray itself is lost, `wait`
says so. The function travels once, into the object store, and what it holds (arrays too) is mapped from there by all
actors of a machine, not copied.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from ripieno import clock, files
from ripieno.cluster.actor import RaySlot, exit_reason, start
from ripieno.cluster.local import check_importable
from ripieno.cluster.pool import Function
from ripieno.cluster.results import Results, must_restart_worker, out_of_memory, seconds_of, timeout_failure, with_slot
from ripieno.cluster.retries import STARTS, Progress, RetryPolicy, no_progress
from ripieno.cluster.worker import failure
from ripieno.durations import check_duration
from ripieno.errors import SearchError, error_summary, require
from ripieno.types import Failure, Job, JobResult

LOOK_SECONDS = 1.0
"""How often the cluster's nodes are looked at."""


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
    reached, or when no node has room for a slot. `wait` raises SearchError when no worker can start on any node, and
    when the cluster is lost.
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
        progress: Progress = no_progress,
    ) -> None:
        if limit is not None:
            check_duration(limit, "limit", error=SearchError)
        check_importable(function)
        self._ray = require("ray")
        if cpus <= 0 or gpus < 0:
            raise SearchError(f"slots of {cpus:g} CPUs and {gpus:g} GPUs: CPUs must be more than 0, GPUs not negative")
        self._needs = {"CPU": cpus, "GPU": gpus, "memory": memory or 0}
        self._most = slots
        self._logs = logs
        if logs is not None:
            files.make_folder(logs)
        self._limit = limit
        self._progress = progress
        self._owned = not self._ray.is_initialized()
        if self._owned:
            self._connect(address)
        self._function = self._ray.put(function)
        self._results = Results()
        self._events: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self._jobs: deque[Job] = deque()
        self._deaths: dict[str, RetryPolicy] = {}  # of each running job
        self._unborn: dict[str, list[str]] = {}  # of each node: the last words of those that died as they started
        self._slots: list[RaySlot] = []
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

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        """Outcomes of jobs that finished since the last call; see `Pool.wait`.

        Raises SearchError, with what to do, when no more of them can come.
        """
        return self._results.wait(timeout)

    def close(self, cancel: bool = False) -> None:
        """Forget the queued jobs and end the slots; see `Pool.close`."""
        self._closing = True
        self._events.put(("close", cancel, None))
        self._thread.join()
        self._disconnect()
        self._results.forget()

    # the thread's side

    def _serve(self) -> None:
        """Live until closed, or until there is nothing to live by: the owner is told, or would wait for ever."""
        try:
            self._live()
        except SearchError as error:
            self._results.end(str(error))
        except Exception as error:  # whatever Ray raises where its head is gone
            line = failure("error", error).message
            mend = "see that its head runs and can be reached, then start the search again, it goes on"
            self._results.end(f"the Ray cluster is lost ({line}): {mend}")
        for slot in self._slots:
            with suppress(Exception):  # what is lost cannot be told to end its actors
                self._ray.kill(slot.actor)

    def _live(self) -> None:
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

    def _hand_out(self) -> None:
        for slot in self._slots:
            if not self._jobs:
                return
            if slot.state == "idle":
                slot.job, slot.state, slot.since = self._jobs.popleft(), "busy", clock.now()
                if slot.job.member not in self._deaths:
                    self._deaths[slot.job.member] = RetryPolicy(slot.job, self._progress)
                self._expect(slot, slot.actor.run.remote(slot.job, slot.since))

    def _expect(self, slot: RaySlot, reference: Any) -> None:
        """Make an event of the actor's answer."""
        reference.future().add_done_callback(lambda future: self._events.put(("answer", slot, future)))

    def _answered(self, slot: RaySlot, future: Any) -> None:
        if slot.state == "gone":
            return
        error, known = future.exception(), self._ray.exceptions
        if slot.job is None and error is None:
            slot.state = "idle"
            self._unborn.pop(slot.node, None)
        elif slot.job is not None and error is None:
            self._ended(slot, slot.job, with_slot(future.result(), slot.number, slot.log))
        elif slot.job is not None and isinstance(error, known.RayTaskError):  # what cannot travel
            self._ended(slot, slot.job, self._failed(slot, slot.job, failure("error", error)))
        elif isinstance(error, known.RayError):  # of many kinds: Ray's own killing for want of memory is one
            self._lost(slot, error)
        else:  # of the connection, not of an actor: no job may be blamed for it
            raise error

    def _ended(self, slot: RaySlot, job: Job, outcome: JobResult) -> None:
        """A job came back: it has its outcome, or is run again where memory was missing."""
        if out_of_memory(outcome) and self._deaths[job.member].should_retry(slot.node, self._nodes()):
            self._again(job)
        else:
            self._finish(job, outcome)
        if must_restart_worker(outcome):
            self._drop(slot)
            self._looked = 0.0
        else:
            slot.job, slot.state = None, "idle"

    def _lost(self, slot: RaySlot, why: BaseException) -> None:
        """An actor died. Its job goes to the next free slot, unless it has killed too many."""
        self._drop(slot)
        if self._closing:
            return
        if (job := slot.job) is None:
            self._unborn.setdefault(slot.node, []).append(exit_reason(why))
            return
        deaths = self._deaths[job.member]
        if deaths.should_retry(slot.node, self._nodes()):
            self._again(job)
        else:
            self._looked = 0.0
            crash = Failure("crash", f"the worker died, {len(deaths)} times: {exit_reason(why)}", str(why), slot.log)
            self._finish(job, self._failed(slot, job, crash))

    def _again(self, job: Job) -> None:
        """Run `job` before all others, as soon as there is a slot: a new one is looked for at once."""
        self._jobs.appendleft(job)
        self._looked = 0.0

    def _failed(self, slot: RaySlot, job: Job, why: Failure) -> JobResult:
        return JobResult(job, failure=why, slot=slot.number, started=slot.since, finished=clock.now())

    def _finish(self, job: Job, outcome: JobResult) -> None:
        self._deaths.pop(job.member, None)
        self._results.put(outcome)

    def _end_hung(self) -> None:
        for slot in list(self._slots):
            seconds = None if slot.job is None else seconds_of(slot.job, self._limit)
            if slot.job is not None and seconds is not None and clock.now() - slot.since > seconds:
                self._finish(
                    slot.job, self._failed(slot, slot.job, timeout_failure(slot.job, self._limit or 0.0, slot.log))
                )
                self._drop(slot)

    def _drop(self, slot: RaySlot) -> None:
        slot.state = "gone"
        self._slots.remove(slot)
        self._ray.kill(slot.actor)

    # the cluster

    def _look(self) -> None:
        """Make slots on nodes with room, drop those of nodes that are gone. Raises SearchError where none can start."""
        self._looked = time.monotonic()
        nodes = self._nodes()
        for slot in [slot for slot in self._slots if slot.node not in nodes]:
            self._lost(slot, RuntimeError("its node is gone"))
        barred: list[str] = []
        for node, resources in nodes.items():
            room = min(int(resources.get(name, 0) / much + 1e-9) for name, much in self._needs.items() if much)
            if room and len(self._unborn.get(node, ())) > STARTS:
                barred.append(node)
                continue
            there = sum(slot.node == node for slot in self._slots)
            for _ in range(room - there):
                if self._most is None or len(self._slots) < self._most:
                    self._start(node)
        if barred and not self._slots:
            words = self._unborn[barred[-1]]
            raise SearchError(
                f"no worker can start on the Ray cluster, {len(words)} died in a row, the last of {words[-1]}: "
                "mend that on its nodes and start the search again, it goes on"
            )

    def _nodes(self) -> dict[str, dict[str, float]]:
        """Resources of the living nodes."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def _start(self, node: str) -> None:
        log = "" if self._logs is None else str(self._logs.resolve() / f"slot-{self._numbers}.log")
        slot = RaySlot(self._numbers, node, start(self._ray, node, self._needs, self._function, log), log)
        self._numbers += 1
        self._slots.append(slot)
        self._expect(slot, slot.actor.ready.remote())

    def _connect(self, address: str) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address == "local":
                processors = None if self._most is None else max(1, round(self._most * self._needs["CPU"]))
                self._ray.init(address="local", num_cpus=processors, include_dashboard=False, **quiet)
            else:
                self._ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            line = error_summary(error)
            raise SearchError(f'no Ray cluster at {address!r} ({line}): start one, or take address "local"') from error

    def _disconnect(self) -> None:
        if self._owned:
            self._owned = False
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(cancel=kind is not None)
