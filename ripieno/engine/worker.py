"""A lane as the engine sees it, and the one in a thread of this process; `process` has the one in a process of its own.

A lane is started, given claims, and tells what became of them to its `House`. It decides nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.memory import Memory
from ripieno.engine.messages import RunBatch
from ripieno.engine.model_runner import Load, ModelRunner, WorkerConfig, describe
from ripieno.errors import EngineError

Report = tuple[int, float, "NDArray[np.float32] | None"]
"""A claim done: its id, the seconds it took, and the predictions unless they are in place already."""


_END: Sequence[RunBatch] = ()
"""No tasks: the thread of a lane ends."""


class WorkerEvents(Protocol):
    """Whom lanes tell; any thread may call."""

    def model_ready(self, lane: int, member: int, seconds: float) -> None:
        """A member takes `seconds` a sample in this lane."""

    def started(self, lane: int) -> None:
        """All members of the lane are ready."""

    def completed(self, lane: int, reports: Sequence[Report]) -> None:
        """Claims are done."""

    def stopped(self, lane: int, cause: str, loading: bool) -> None:
        """The lane is gone and will touch nothing more; `loading`: a member raised while it was loaded."""


class Worker(Protocol):
    """One lane."""

    @property
    def process(self) -> int:
        """Id of the process it runs in."""

    def start(self) -> None:
        """(Re)start; supervisor's thread."""

    def send(self, tasks: Sequence[RunBatch]) -> None:
        """Hand over tasks; never blocks."""

    def kill(self, cause: str) -> None:
        """End a lane that hangs; `House.dead` follows. Supervisor's thread."""

    def ping(self, now: float) -> float:
        """Ask for a sign of life; returns how many seconds the last question has been open. Supervisor's thread."""

    def close(self) -> None:
        """Begin to end, for good. Supervisor's thread."""

    def join(self, until: float) -> None:
        """Wait until it has ended, at most until the time `until`, then by force if force there is."""


class ThreadWorker:
    """A lane in a thread: loads its members there, so that their thread pools inherit its cores."""

    def __init__(self, index: int, orders: WorkerConfig, load: Load, memory: Memory, house: WorkerEvents) -> None:
        self._index, self._orders, self._load, self._memory, self._house = index, orders, load, memory, house
        self._inbox: queue.SimpleQueue[Sequence[RunBatch]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def process(self) -> int:
        """This process."""
        return os.getpid()

    def start(self) -> None:
        """A new thread with a new inbox; a thread that was given up finds itself without a name and ends."""
        self._inbox = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(self._inbox,), name=f"ripieno-lane-{self._index}", daemon=True
        )
        self._thread.start()

    def send(self, tasks: Sequence[RunBatch]) -> None:
        """Hand over tasks."""
        self._inbox.put(tasks)

    def kill(self, cause: str) -> None:
        """A thread cannot be killed: it is given up, and what it may still bring is refused as late."""
        self._inbox.put(_END)
        self._inbox = queue.SimpleQueue()
        self._house.stopped(self._index, cause, loading=False)

    def ping(self, now: float) -> float:  # noqa: ARG002
        """A thread of this process is alive."""
        return 0.0

    def close(self) -> None:
        """End after the running tasks."""
        self._inbox.put(_END)

    def join(self, until: float) -> None:
        """Wait for the end."""
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self, inbox: queue.SimpleQueue[Sequence[RunBatch]]) -> None:
        house, index = self._house, self._index
        crew = None
        loading = True
        reports: list[Report] = []
        try:
            crew = ModelRunner(self._load, self._orders, self._memory)
            for member, seconds in crew.warm_up().items():
                house.model_ready(index, member, seconds)
            if self._inbox is inbox:
                house.started(index)
            loading = False
            while tasks := inbox.get():
                for task in tasks:
                    probabilities, seconds = crew.run(task.member, task.slots)
                    reports.append((task.claim, seconds, probabilities))
                    if not task.hold:
                        # let go of first: what is refused must not be brought again below
                        told, reports = reports, []
                        house.completed(index, told)
        except Exception as error:
            with contextlib.suppress(EngineError):  # one of them may be what is wrong: the lane must end all the same
                if reports:
                    house.completed(index, reports)
            if self._inbox is inbox:
                house.stopped(index, describe(error), loading)
        finally:
            if crew:
                crew.close()
