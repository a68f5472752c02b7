"""Pool of worker processes on this machine.

Theory of operation. Each slot is a thread that owns a `ProcessPoolExecutor` of one worker. The thread takes the oldest
job from the common queue, submits it to its worker, waits, and puts the outcome into the common results. The slot gets
its next job without the owner of the pool, and jobs start in the order submitted. A worker that dies breaks only its
own executor; the thread makes a new one and runs the job again, as often as :mod:`ripieno.cluster.retries` allows. A
worker is replaced after a job that failed on its GPU or ran out of memory. Workers are spawned, not forked (threads and
CUDA do not survive a fork), and do not run the caller's script again: a script needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from ripieno import clock
from ripieno.cluster.bootstrap import bootstrap
from ripieno.cluster.job_runner import failure, noop, run_job
from ripieno.cluster.pool import Function
from ripieno.cluster.retries import JobProgress, RetryPolicy, must_restart_worker, no_progress, out_of_memory
from ripieno.cluster.slots import SlotEnv, cpu_slots
from ripieno.cluster.threaded_pool import ThreadedPool, failed, with_slot
from ripieno.errors import SearchError
from ripieno.types import Failure, Job, JobResult

STARTING = 300.0
"""Seconds within which a worker must start, if jobs have a limit."""
WORDS = 8000
"""Maximum bytes of a worker's log in the report of its crash."""


class LocalPool(ThreadedPool):
    """Pool with one worker process per slot: a killed worker costs its job's progress, never the pool or another job.

    `slots` is a number of CPU slots, or environments made by `cpu_slots` or `gpu_slots`. `function` must be importable
    by name (or a `functools.partial` of such a function). With `logs`, the output of workers is written to
    `logs/slot-0.log` and so on. A job that takes longer than `limit` seconds for each of its epochs, its worker's start
    not counted, is ended and not retried; one that kills its workers repeatedly without `progress` is a failure.
    Raises SearchError when `function` is not importable or there is no slot.
    """

    def __init__(
        self,
        function: Function,
        slots: int | Sequence[SlotEnv] = 1,
        *,
        logs: Path | None = None,
        limit: float | None = None,
        progress: JobProgress = no_progress,
    ) -> None:
        super().__init__(function, logs, limit, progress)
        environments = cpu_slots(slots) if isinstance(slots, int) else tuple(slots)
        if not environments:
            raise SearchError("the pool has no slots: pass at least one")
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._workers = [
            _Worker(number, function, environment, "" if logs is None else str(logs / f"slot-{number}.log"))
            for number, environment in enumerate(environments)
        ]
        self._threads = [
            threading.Thread(target=self._serve, args=(worker,), name=f"slot-{worker.number}", daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    @property
    def slots(self) -> int:
        """Number of worker processes."""
        return len(self._workers)

    def submit(self, job: Job) -> None:
        """Queue `job`."""
        assert not self._closing.is_set(), "submit after close"
        self._outstanding += 1
        self._jobs.put(job)

    def close(self, cancel: bool = False) -> None:
        """Discard the queued jobs and end the workers; see `Pool.close`."""
        self._closing.set()
        for _ in self._threads:
            self._jobs.put(None)
        if cancel:
            for worker in self._workers:
                worker.kill()
        for thread in self._threads:
            thread.join()
        self._outstanding = 0

    def _serve(self, worker: _Worker) -> None:
        """Run jobs on `worker` until the pool closes."""
        while (job := self._jobs.get()) is not None and not self._closing.is_set():
            self._outcomes.put(self._run(worker, job))
        worker.end()

    def _run(self, worker: _Worker, job: Job) -> JobResult:
        started, retries, reason = clock.now(), RetryPolicy(job, self._progress), "was stopped"
        log_size = worker.log_size()
        while not self._closing.is_set():
            try:
                outcome = worker.run(job, self._seconds(job))
                if must_restart_worker(outcome):
                    worker.stop()
                if not (out_of_memory(outcome) and retries.should_retry()):
                    return with_slot(outcome, worker.number, worker.log)
            except TimeoutError:
                worker.stop()
                return failed(job, self._timeout(job, worker.log), worker.number, started)
            except BrokenProcessPool:
                should_retry = retries.should_retry if worker.up else retries.starting
                reason = worker.clean_up()
                if not should_retry():
                    break
            except Exception as error:  # the job or its outcome cannot be pickled
                return failed(job, failure("error", error), worker.number, started)
        crash = Failure("crash", f"the worker {reason}, {len(retries)} times", worker.log_tail(log_size), worker.log)
        return failed(job, crash, worker.number, started)


class _Worker:
    """A process that runs one job at a time and is replaced when it dies. Other threads may call `kill`."""

    def __init__(self, number: int, function: Function, environment: SlotEnv, log: str) -> None:
        self.number = number
        self.log = log
        self._function = function
        self._initargs = (dict(environment), os.getpid(), log, clock.origin())
        self._lock = threading.Lock()
        self._killed = False
        self._context = _Context()
        self._executor: ProcessPoolExecutor | None = None
        self._up: Future[None] | None = None

    @property
    def up(self) -> bool:
        """True if the process started and imported the function, so that a death is the job's."""
        return self._up is not None and self._up.done() and self._up.exception() is None

    def run(self, job: Job, seconds: float | None) -> JobResult:
        """Run `job`. Raises BrokenProcessPool when the process dies, TimeoutError after `seconds`."""
        outcome = self._submit(job)
        if seconds is not None and self._up is not None:
            self._up.result(STARTING)  # the time of imports does not count for the job
        return outcome.result(seconds)

    def _submit(self, job: Job) -> Future[JobResult]:
        with self._lock:
            if self._killed:
                raise BrokenProcessPool("killed")
            if self._executor is None:
                self._up = None
                self._executor = ProcessPoolExecutor(1, self._context, bootstrap, self._initargs)
            try:
                self._up = self._up or self._executor.submit(noop, self._function)
                return self._executor.submit(run_job, self._function, job)
            except BrokenProcessPool:  # it died while idle
                self._up = None
                raise
            except OSError as error:  # the process could not be started: not the job's fault
                raise BrokenProcessPool(str(error)) from error

    def clean_up(self) -> str:
        """Remove a dead process; return how it died."""
        self.end()
        process = self._context.process
        code = None if process is None else process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return "could not be started" if code is None else f"ended with exit code {code}"

    def log_size(self) -> int:
        """Return the size of the log in bytes."""
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def log_tail(self, start: int) -> str:
        """Return the end of the log after its first `start` bytes: the traceback of a crash in native code."""
        if not os.path.exists(self.log):
            return ""
        with open(self.log, "rb") as stream:
            stream.seek(max(start, self.log_size() - WORDS))
            return stream.read().decode(errors="replace").strip()

    def end(self) -> None:
        """End the process after its running job."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None

    def stop(self) -> None:
        """End the process now; the next job gets a new one."""
        self._context.kill()
        self.end()

    def kill(self) -> None:
        """End the process now; no new one is started."""
        with self._lock:
            self._killed = True
            self._context.kill()


_starting = threading.Lock()


class _Process(SpawnProcess):
    """A spawned process that does not import the caller's `__main__`, which it does not need."""

    def start(self) -> None:
        with _starting:  # one slot at a time, as `__main__` is replaced meanwhile
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            # the worker inherits the mask: SIGINT stays blocked until the worker ignores it
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                sys.modules["__main__"] = main


class _Context(SpawnContext):
    """Context that keeps the process that the executor started last: its exit code shows why it died."""

    process: _Process | None = None

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]  # noqa: N802
        self.process = _Process(*args, **kwargs)
        return self.process

    def kill(self) -> None:
        if self.process is not None and self.process.pid is not None:
            self.process.kill()
