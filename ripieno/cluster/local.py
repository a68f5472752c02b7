"""A pool of worker processes on this machine.

Theory of operation. Each slot is a thread of ours that owns a `ProcessPoolExecutor` of one worker. The thread takes
the oldest job from the common queue, hands it to its worker, waits, and puts the outcome into the common results: a
slot is busy again without the owner of the pool lifting a finger, and jobs start in the order submitted. A worker that
dies breaks its own executor only; the thread makes a new one and runs the job again, as often as
:mod:`ripieno.cluster.retries` allows. One whose job failed on its GPU, or for want of memory, is replaced. Workers are
spawned, not forked (threads and CUDA do not survive a fork), and do not run the caller's script again: a script needs
no `if __name__ == "__main__"`.
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
from functools import partial
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from ripieno import clock, files
from ripieno.cluster.bootstrap import bootstrap
from ripieno.cluster.pool import Function
from ripieno.cluster.results import Results, must_restart_worker, out_of_memory, seconds_of, timeout_failure, with_slot
from ripieno.cluster.retries import Progress, RetryPolicy, no_progress
from ripieno.cluster.slots import SlotEnv, cpu_slots
from ripieno.cluster.worker import failure, noop, run_job
from ripieno.durations import check_duration
from ripieno.errors import SearchError
from ripieno.types import Failure, Job, JobResult

STARTING = 300.0
"""Seconds within which a worker must be up, where jobs have a limit."""
WORDS = 8000
"""Most bytes of a worker's log that are told with its crash."""


class LocalPool:
    """One worker process per slot: a worker killed costs its job's progress, never the pool or another job.

    `slots` is a number of CPU slots, or environments made by `cpu_slots` or `gpu_slots`. `function` must be importable
    by name (or a `functools.partial` of such a function). With `logs`, what workers write goes to `logs/slot-0.log` and
    so on. A job that takes longer than `limit` seconds for each of its epochs, its worker's start not counted, is ended
    and not tried again; one that kills its workers is a failure when it does so without `progress`. Raises SearchError
    when `function` is not importable or a slot is missing.
    """

    def __init__(
        self,
        function: Function,
        slots: int | Sequence[SlotEnv] = 1,
        *,
        logs: Path | None = None,
        limit: float | None = None,
        progress: Progress = no_progress,
    ) -> None:
        if limit is not None:
            check_duration(limit, "limit", error=SearchError)
        check_importable(function)
        environments = cpu_slots(slots) if isinstance(slots, int) else tuple(slots)
        if not environments:
            raise SearchError("a pool without slots runs nothing: give it at least one")
        if logs is not None:
            files.make_folder(logs)
        self.slots = len(environments)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._results = Results()
        self._limit = limit
        self._progress = progress
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

    def submit(self, job: Job) -> None:
        """Queue `job`."""
        assert not self._closing.is_set(), "submit after close"
        self._results.expect()
        self._jobs.put(job)

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        """Outcomes of jobs that finished since the last call; see `Pool.wait`."""
        return self._results.wait(timeout)

    def close(self, cancel: bool = False) -> None:
        """Forget the queued jobs and end the workers; see `Pool.close`."""
        self._closing.set()
        for _ in self._threads:
            self._jobs.put(None)
        if cancel:
            for worker in self._workers:
                worker.kill()
        for thread in self._threads:
            thread.join()
        self._results.forget()

    def _serve(self, worker: _Worker) -> None:
        """A slot's life."""
        while (job := self._jobs.get()) is not None and not self._closing.is_set():
            self._results.put(self._run(worker, job))
        worker.end()

    def _run(self, worker: _Worker, job: Job) -> JobResult:
        started, deaths, why = clock.now(), RetryPolicy(job, self._progress), "was stopped"
        before = worker.written()
        while not self._closing.is_set():
            try:
                outcome = worker.run(job, seconds_of(job, self._limit))
                if must_restart_worker(outcome):
                    worker.stop()
                if not (out_of_memory(outcome) and deaths.should_retry()):
                    return with_slot(outcome, worker.number, worker.log)
            except TimeoutError:
                worker.stop()
                failed = timeout_failure(job, self._limit or 0.0, worker.log)
                return JobResult(job, failure=failed, slot=worker.number, started=started, finished=clock.now())
            except BrokenProcessPool:
                counted = deaths.should_retry if worker.up else deaths.starting
                why = worker.bury()
                if not counted():
                    break
            except Exception as error:  # what cannot travel between processes
                failed = failure("error", error)
                return JobResult(job, failure=failed, slot=worker.number, started=started, finished=clock.now())
        crash = Failure("crash", f"the worker {why}, {len(deaths)} times", worker.words(before), worker.log)
        return JobResult(job, failure=crash, slot=worker.number, started=started, finished=clock.now())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(cancel=kind is not None)


class _Worker:
    """A process that runs one job at a time, replaced when it died. `kill` may come from another thread."""

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
        """Whether the process had come as far as its job, the function's imports behind it."""
        return self._up is not None and self._up.done() and self._up.exception() is None

    def run(self, job: Job, seconds: float | None) -> JobResult:
        """Raises BrokenProcessPool when the process dies, TimeoutError when the job needs more than `seconds`."""
        outcome = self._hand(job)
        if seconds is not None and self._up is not None:
            self._up.result(STARTING)  # how long imports take says nothing of the job
        return outcome.result(seconds)

    def _hand(self, job: Job) -> Future[JobResult]:
        with self._lock:
            if self._killed:
                raise BrokenProcessPool("killed")
            if self._executor is None:
                self._up = None
                self._executor = ProcessPoolExecutor(1, self._context, bootstrap, self._initargs)
            try:
                self._up = self._up or self._executor.submit(noop, self._function)
                return self._executor.submit(run_job, self._function, job)
            except BrokenProcessPool:  # it died without a job
                self._up = None
                raise
            except OSError as error:  # the process could not be started: not the job's fault
                raise BrokenProcessPool(str(error)) from error

    def bury(self) -> str:
        """Clear a dead process away; says how it died."""
        self.end()
        code = self._context.exit_code()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return "could not be started" if code is None else f"ended with exit code {code}"

    def written(self) -> int:
        """Bytes in the log."""
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def words(self, before: int) -> str:
        """The end of what was written to the log after as many bytes: of a crash in native code, the traceback."""
        if not os.path.exists(self.log):
            return ""
        with open(self.log, "rb") as stream:
            stream.seek(max(before, self.written() - WORDS))
            return stream.read().decode(errors="replace").strip()

    def end(self) -> None:
        """Let the process finish what it does and end."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None

    def stop(self) -> None:
        """End the process now; the next job gets a new one."""
        self._context.kill()
        self.end()

    def kill(self) -> None:
        """End the process now, for good."""
        with self._lock:
            self._killed = True
            self._context.kill()


_starting = threading.Lock()


class _Process(SpawnProcess):
    """A spawned process that does not import the caller's `__main__`: nothing of it is needed there."""

    def start(self) -> None:
        with _starting:  # of several slots, one at a time
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            # inherited: Ctrl-C waits until the worker has said that it ignores it
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                sys.modules["__main__"] = main


class _Context(SpawnContext):
    """Remembers the process an executor started last: its exit code says why it died."""

    process: _Process | None = None

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]  # noqa: N802
        self.process = _Process(*args, **kwargs)
        return self.process

    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.exitcode

    def kill(self) -> None:
        if self.process is not None and self.process.pid is not None:
            self.process.kill()


def check_importable(function: Function) -> None:
    """A clear line now instead of a worker's traceback later."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    module, name = getattr(inner, "__module__", None), getattr(inner, "__qualname__", "")
    if module is None or module == "__main__" or "<" in name:
        raise SearchError(
            f"jobs cannot run {name or inner!r} of {module or 'no module'} in other processes: "
            "it must be a function at the top of a module that can be imported"
        )
