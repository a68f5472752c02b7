"""Pool of Ray actors: slots on every node of a cluster; nodes may join and leave at any time.

Theory of operation. A slot is an actor, pinned to a node, from which it takes resources. One thread handles a queue of
events: a job is submitted, an actor has replied or died, or a timeout has passed. It assigns the oldest job to an idle
slot. Every `LOOK_SECONDS` it compares the cluster with its slots: each living node has as many slots as fit in its
resources. A slot that has not started gets no job, so a dead node, which Ray may list for several more seconds, costs
no job. When an actor dies its job returns to the head of the queue, as often as :mod:`ripieno.cluster.retries` allows:
a death with its node, or on a node that has left since, is not the job's fault. A node on which actors die repeatedly
as they start gets no more of them; when that is every node, or Ray itself is lost, `wait` raises. The function is
stored once in the object store; all actors of a machine map its contents (also arrays) from there without a copy.
"""

from __future__ import annotations

import faulthandler
import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ripieno import clock
from ripieno.cluster.bootstrap import write_to
from ripieno.cluster.job_runner import failure, run_job
from ripieno.cluster.pool import Function
from ripieno.cluster.retries import STARTS, JobProgress, RetryPolicy, must_restart_worker, no_progress, out_of_memory
from ripieno.cluster.threaded_pool import ThreadedPool, failed, with_slot
from ripieno.errors import SearchError, error_summary, require
from ripieno.resources import sleep_while_waiting
from ripieno.types import Failure, Job, JobResult

LOOK_SECONDS = 1.0
"""Interval at which the cluster's nodes are listed."""


class Actor:
    """Ray actor of one slot: holds the function and runs jobs one by one."""

    def __init__(self, paths: Sequence[str], function: Sequence[Any], log: str) -> None:
        import ray

        sleep_while_waiting()
        if log:
            write_to(log)
        faulthandler.enable(2)
        sys.path += [path for path in paths if path not in sys.path]
        self._function: Function = ray.get(function[0])

    def ready(self) -> bool:
        """Return True; the reply shows that the slot has started."""
        return True

    def run(self, job: Job, now: float) -> JobResult:
        """Run `job`; an exception becomes its failure. `now` is the time of the pool's clock."""
        clock.follow(now - time.monotonic())
        return run_job(self._function, job)


@dataclass(eq=False)
class RaySlot:
    """The pool's record of a slot."""

    number: int
    node: str
    actor: Any
    log: str
    state: Literal["starting", "idle", "busy", "gone"] = "starting"
    job: Job | None = None
    since: float = 0.0


def exit_reason(error: BaseException) -> str:
    """Return in one line why an actor died: the error it raised as it started, otherwise how its process ended."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    if getattr(error, "actor_init_failed", False):  # a traceback, which ends in the error
        return lines[-1]
    return next((line for line in lines if "exit" in line.lower()), lines[0])


class RayPool(ThreadedPool):
    """Pool that runs jobs on Ray actors, as many as fit on the cluster's nodes at the time.

    `address` is "local" (a cluster of this machine, started for the pool and ended with it; `slots` limits it), or that
    of a running cluster, "auto" for the one on this machine; an existing connection of the caller to Ray is used. Each
    slot takes `cpus`, `gpus` and `memory` (bytes) of one node; a fraction of a GPU shares it, by bookkeeping only.
    `function` must be importable by name on all nodes, and must write to a folder that they share; `logs` must be in
    that folder. `logs`, `limit` and `progress` are as in `LocalPool`.

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
        progress: JobProgress = no_progress,
    ) -> None:
        super().__init__(function, logs, limit, progress)
        self._ray = require("ray")
        if cpus <= 0 or gpus < 0:
            raise SearchError(f"slots of {cpus:g} CPUs and {gpus:g} GPUs: CPUs must be more than 0, GPUs not negative")
        self._needs = {"CPU": cpus, "GPU": gpus, "memory": memory or 0}
        self._most = slots
        self._owned = not self._ray.is_initialized()
        if self._owned:
            self._connect(address)
        self._function = self._ray.put(function)
        self._events: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self._jobs: deque[Job] = deque()
        self._retries: dict[str, RetryPolicy] = {}  # by running job
        self._start_failures: dict[str, list[str]] = {}  # by node: exit reasons of actors that died as they started
        self._slots: list[RaySlot] = []
        self._numbers = 0
        self._closing = False
        self._last_update = 0.0
        self._update_slots()
        if not self._slots:
            self._disconnect()
            raise SearchError(
                f"no node of the Ray cluster has {cpus:g} CPUs, {gpus:g} GPUs and {memory or 0} bytes: request less"
            )
        self._thread = threading.Thread(target=self._serve, name="ray-pool", daemon=True)
        self._thread.start()

    # called by the owner

    @property
    def slots(self) -> int:
        """Current number of slots, but at least 1, so that a search waits for nodes to join."""
        return max(1, len(self._slots))

    def submit(self, job: Job) -> None:
        """Queue `job`."""
        assert not self._closing, "submit after close"
        self._outstanding += 1
        self._events.put(("job", job, None))

    def close(self, cancel: bool = False) -> None:
        """Discard the queued jobs and end the slots; see `Pool.close`."""
        self._closing = True
        self._events.put(("close", cancel, None))
        self._thread.join()
        self._disconnect()
        self._outstanding = 0

    # run by the thread

    def _serve(self) -> None:
        """Handle events until closed; on an error end the results, as the owner would wait for ever."""
        try:
            self._handle_events()
        except SearchError as error:
            self._end(str(error))
        except Exception as error:  # any error that Ray raises when its head is gone
            line = failure("error", error).message
            remedy = "check that its head runs and can be reached, then start the search again to resume it"
            self._end(f"the Ray cluster is lost ({line}): {remedy}")
        for slot in self._slots:
            with suppress(Exception):  # a lost cluster cannot end its actors
                self._ray.kill(slot.actor)

    def _handle_events(self) -> None:
        """Handle events until closed."""
        while not (self._closing and all(slot.state != "busy" for slot in self._slots)):
            try:
                kind, value, future = self._events.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                kind, value, future = "", None, None
            if kind == "job":
                self._jobs.append(value)
            elif kind == "close":
                self._jobs.clear()
                if value:
                    break
            elif kind:
                self._on_reply(value, future)
            if time.monotonic() - self._last_update > LOOK_SECONDS and not self._closing:
                self._update_slots()
            self._end_hung()
            self._assign_jobs()

    def _assign_jobs(self) -> None:
        for slot in self._slots:
            if not self._jobs:
                return
            if slot.state == "idle":
                slot.job, slot.state, slot.since = self._jobs.popleft(), "busy", clock.now()
                if slot.job.member not in self._retries:
                    self._retries[slot.job.member] = RetryPolicy(slot.job, self._progress)
                self._expect(slot, slot.actor.run.remote(slot.job, slot.since))

    def _expect(self, slot: RaySlot, reference: Any) -> None:
        """Queue an event when the actor replies."""
        reference.future().add_done_callback(lambda future: self._events.put(("reply", slot, future)))

    def _on_reply(self, slot: RaySlot, future: Any) -> None:
        if slot.state == "gone":
            return
        error, known = future.exception(), self._ray.exceptions
        if slot.job is None and error is None:
            slot.state = "idle"
            self._start_failures.pop(slot.node, None)
        elif slot.job is not None and error is None:
            self._on_job_end(slot, slot.job, with_slot(future.result(), slot.number, slot.log))
        elif slot.job is not None and isinstance(error, known.RayTaskError):  # the outcome cannot be pickled
            self._on_job_end(slot, slot.job, failed(slot.job, failure("error", error), slot.number, slot.since))
        elif isinstance(error, known.RayError):  # one of many kinds, e.g. Ray killed the actor for lack of memory
            self._on_actor_death(slot, error)
        else:  # an error of the connection, not of an actor, so not the job's fault
            raise error

    def _on_job_end(self, slot: RaySlot, job: Job, outcome: JobResult) -> None:
        """Record the outcome of a job, or run the job again if it ran out of memory."""
        if out_of_memory(outcome) and self._retries[job.member].should_retry(slot.node, self._nodes()):
            self._requeue(job)
        else:
            self._finish(job, outcome)
        if must_restart_worker(outcome):
            self._drop(slot)
            self._last_update = 0.0
        else:
            slot.job, slot.state = None, "idle"

    def _on_actor_death(self, slot: RaySlot, error: BaseException) -> None:
        """Requeue the job of a dead actor, or record a failure if the job has killed too many."""
        self._drop(slot)
        if self._closing:
            return
        if (job := slot.job) is None:
            self._start_failures.setdefault(slot.node, []).append(exit_reason(error))
            return
        retries = self._retries[job.member]
        if retries.should_retry(slot.node, self._nodes()):
            self._requeue(job)
        else:
            self._last_update = 0.0
            message = f"the worker died, {len(retries)} times: {exit_reason(error)}"
            crash = Failure("crash", message, str(error), slot.log)
            self._finish(job, failed(job, crash, slot.number, slot.since))

    def _requeue(self, job: Job) -> None:
        """Put `job` at the head of the queue and update the slots at once."""
        self._jobs.appendleft(job)
        self._last_update = 0.0

    def _finish(self, job: Job, outcome: JobResult) -> None:
        self._retries.pop(job.member, None)
        self._outcomes.put(outcome)

    def _end_hung(self) -> None:
        for slot in list(self._slots):
            if (job := slot.job) is None or (seconds := self._seconds(job)) is None:
                continue
            if clock.now() - slot.since > seconds:
                self._finish(job, failed(job, self._timeout(job, slot.log), slot.number, slot.since))
                self._drop(slot)

    def _drop(self, slot: RaySlot) -> None:
        slot.state = "gone"
        self._slots.remove(slot)
        self._ray.kill(slot.actor)

    # the cluster

    def _update_slots(self) -> None:
        """Start slots on nodes with room, drop those of nodes that have left. Raises SearchError if none can start."""
        self._last_update = time.monotonic()
        nodes = self._nodes()
        for slot in [slot for slot in self._slots if slot.node not in nodes]:
            self._on_actor_death(slot, RuntimeError("its node left the cluster"))
        excluded: list[str] = []
        for node, resources in nodes.items():
            room = min(int(resources.get(name, 0) / need + 1e-9) for name, need in self._needs.items() if need)
            if room and len(self._start_failures.get(node, ())) > STARTS:
                excluded.append(node)
                continue
            used = sum(slot.node == node for slot in self._slots)
            for _ in range(room - used):
                if self._most is None or len(self._slots) < self._most:
                    self._start(node)
        if excluded and not self._slots:
            reasons = self._start_failures[excluded[-1]]
            raise SearchError(
                f"no worker can start on the Ray cluster: {len(reasons)} died in a row, the last with: {reasons[-1]}. "
                "Fix that on its nodes and start the search again to resume it"
            )

    def _nodes(self) -> dict[str, dict[str, float]]:
        """Return the resources of the living nodes by id."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def _start(self, node: str) -> None:
        """Start an actor on `node`; it receives an object reference to the job function."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        log = "" if self._logs is None else str(self._logs.resolve() / f"slot-{self._numbers}.log")
        options = {
            "num_cpus": self._needs["CPU"],
            "num_gpus": self._needs["GPU"],
            "memory": self._needs["memory"] or None,
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }
        actor = self._ray.remote(Actor).options(**options).remote(sys.path, [self._function], log)
        slot = RaySlot(self._numbers, node, actor, log)
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
