"""The interface of workers, and the worker in a thread of this process; `process_worker` has the worker in a process.

A worker is started, receives tasks, and reports their results to `WorkerEvents`. It makes no decisions.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from ripieno.engine.messages import RunBatch
from ripieno.engine.model_runner import Load, MemberOutput, ModelRunner, WorkerConfig, describe
from ripieno.engine.ring_memory import Memory
from ripieno.errors import EngineError

Report = tuple[int, float, Sequence[MemberOutput] | None]
"""Finished assignment: its id, its seconds, and the predictions unless they are already in place."""

_END: Sequence[RunBatch] = ()
"""No tasks: ends the thread of a worker."""


class WorkerEvents(Protocol):
    """Callbacks of workers; any thread may call them."""

    def model_ready(self, worker: int, unit: int, seconds: float) -> None:
        """Report that a unit is ready, and takes `seconds` per sample in this worker."""

    def started(self, worker: int) -> None:
        """Report that all members of the worker are ready."""

    def completed(self, worker: int, reports: Sequence[Report]) -> None:
        """Report finished assignments."""

    def stopped(self, worker: int, cause: str, loading: bool) -> None:
        """Report that the worker has ended and writes nothing more; `loading`: a member raised during its load."""


class Worker(Protocol):
    """One worker on a device."""

    @property
    def process(self) -> int:
        """Id of its process."""

    def start(self) -> None:
        """Start or restart. The event loop's thread only."""

    def send(self, tasks: Sequence[RunBatch]) -> None:
        """Send tasks; never blocks."""

    def kill(self, cause: str) -> None:
        """Kill a worker that hangs; `WorkerEvents.stopped` follows. The event loop's thread only."""

    def ping(self, now: float) -> float:
        """Send a ping; return for how many seconds the last ping is unanswered. The event loop's thread only."""

    def close(self) -> None:
        """Begin the final end. The event loop's thread only."""

    def join(self, until: float) -> None:
        """Wait for the end until the time `until`, then kill it if possible."""


class ThreadWorker:
    """Worker in a thread, which loads its members, so that their thread pools inherit its cores."""

    def __init__(self, index: int, config: WorkerConfig, load: Load, memory: Memory, events: WorkerEvents) -> None:
        self._index, self._config, self._load, self._memory, self._events = index, config, load, memory, events
        self._inbox: queue.SimpleQueue[Sequence[RunBatch]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def process(self) -> int:
        """Id of this process."""
        return os.getpid()

    def start(self) -> None:
        """Start a new thread with a new inbox; an abandoned thread finds that its inbox was replaced, and ends."""
        self._inbox = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(self._inbox,), name=f"ripieno-worker-{self._index}", daemon=True
        )
        self._thread.start()

    def send(self, tasks: Sequence[RunBatch]) -> None:
        """Queue tasks in the inbox."""
        self._inbox.put(tasks)

    def kill(self, cause: str) -> None:
        """Abandon the thread, which cannot be killed; its later reports are ignored."""
        self._inbox.put(_END)
        self._inbox = queue.SimpleQueue()
        self._events.stopped(self._index, cause, loading=False)

    def ping(self, now: float) -> float:  # noqa: ARG002
        """Return 0: a thread of this process is alive."""
        return 0.0

    def close(self) -> None:
        """Let the thread end after the running tasks."""
        self._inbox.put(_END)

    def join(self, until: float) -> None:
        """Wait for the end."""
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self, inbox: queue.SimpleQueue[Sequence[RunBatch]]) -> None:
        events, index = self._events, self._index
        runner = None
        loading = True
        reports: list[Report] = []
        try:
            runner = ModelRunner(self._load, self._config, self._memory)
            for unit, seconds in runner.warm_up().items():
                events.model_ready(index, unit, seconds)
            if self._inbox is inbox:
                events.started(index)
            loading = False
            while tasks := inbox.get():
                for task in tasks:
                    predictions, seconds = runner.run(task.unit, task.slots)
                    reports.append((task.assignment, seconds, predictions))
                    if not task.hold:
                        # clear the list first: a report that raises must not be sent again below
                        finished, reports = reports, []
                        events.completed(index, finished)
        except Exception as error:
            with contextlib.suppress(EngineError):  # a report may be the cause of the error: the worker must end anyway
                if reports:
                    events.completed(index, reports)
            if self._inbox is inbox:
                events.stopped(index, describe(error), loading)
        finally:
            if runner:
                runner.close()
