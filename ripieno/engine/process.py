"""A lane in a process of its own, as the engine sees it. Same interface, same results as `lane.ThreadLane`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from ripieno.engine.memory import Memory
from ripieno.engine.messages import LONGEST, MessageKind, RunBatch, WorkerSetup, pack_setup, pack_tasks, unpack_messages
from ripieno.engine.model_runner import Load, WorkerConfig, load_name
from ripieno.engine.supervisor import Supervisor
from ripieno.engine.worker import Report, WorkerEvents
from ripieno.resources import thread_variables
from ripieno.types import Input


class ProcessWorker:
    """A lane in a process, started with nothing but Python, NumPy and its backend (see `worker`)."""

    def __init__(
        self,
        index: int,
        orders: WorkerConfig,
        load: Load,
        memory: Memory,
        house: WorkerEvents,
        *,
        supervisor: Supervisor,
        input: Input,
    ) -> None:
        self._index, self._memory, self._house, self._supervisor = index, memory, house, supervisor
        members, capacity, classes = memory.predictions.shape
        # what a backend needs of a member; learning curves and class names would only swell the setup
        models = tuple(
            dataclasses.replace(s, member=dataclasses.replace(s.member, curve=(), losses={}, costs={}))
            for s in orders.models
        )
        orders = dataclasses.replace(orders, models=models)
        self._setup = WorkerSetup(load_name(load), orders, capacity, members, classes, input)
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks: socket.socket | None = None
        self._life: socket.socket | None = None
        self._asked: float | None = None
        self._cause = ""
        self._up = self._raised = self._lives = False

    @property
    def process(self) -> int:
        """Process id of the lane, 0 before its start."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start a process; it inherits one end of two socket pairs and the shared memory."""
        self._cause, self._asked = "", None
        self._up = self._raised = self._lives = False
        self._tasks, tasks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._life, life = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        setup = os.memfd_create("ripieno-setup", os.MFD_CLOEXEC)
        with tasks, life, os.fdopen(setup, "r+b") as stdin:
            stdin.write(pack_setup(self._setup))
            stdin.seek(0)
            inherited = (self._memory.descriptor, tasks.fileno(), life.fileno())
            call = f"from ripieno.engine.worker_process import main; main{(os.getpid(), *inherited)!r}"
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {call}"],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                pass_fds=inherited,
                env={**os.environ, **thread_variables(self._setup.config.threads)},
            )
        for end in (self._tasks, self._life):
            end.setblocking(False)
        self._supervisor.watch(self._tasks.fileno(), self._hear)
        self._supervisor.watch(self._life.fileno(), self._pong)

    def send(self, tasks: Sequence[RunBatch]) -> None:
        """Hand over tasks in one message; a lane that cannot take it is dying, which is heard elsewhere."""
        end = self._tasks
        if end:
            with contextlib.suppress(OSError):
                end.send(pack_tasks(tasks))

    def kill(self, cause: str) -> None:
        """SIGKILL; the end of its socket brings the news."""
        self._cause = self._cause or cause
        if self._process:
            self._process.kill()

    def ping(self, now: float) -> float:
        """Ask over the lifeline unless a question is open; not before it has spoken first."""
        if self._asked is not None:
            return now - self._asked
        if self._life and self._lives:
            with contextlib.suppress(OSError):
                self._life.send(b"?")
                self._asked = now
        return 0.0

    def close(self) -> None:
        """Close both sockets: the process ends itself."""
        for end in (self._tasks, self._life):
            if end:
                self._supervisor.unwatch(end.fileno())
                end.close()
        self._tasks = self._life = None

    def join(self, until: float) -> None:
        """Wait for its end; SIGKILL at `until`."""
        if not self._process:
            return
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _pong(self) -> None:
        assert self._life
        try:
            if self._life.recv(16):
                self._lives, self._asked = True, None
                return
        except OSError:
            pass
        self._supervisor.unwatch(self._life.fileno())  # it is dying; its other socket brings the news

    def _hear(self) -> None:
        """Read all news there are."""
        assert self._tasks
        reports: list[Report] = []
        gone = False
        while True:
            try:
                message = self._tasks.recv(LONGEST)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                gone = True
                break
            for news in unpack_messages(message):
                if news.kind is MessageKind.DONE:
                    reports.append((news.claim, news.seconds, None))
                elif news.kind is MessageKind.READY:
                    self._house.model_ready(self._index, news.member, news.seconds)
                elif news.kind is MessageKind.UP:
                    self._up = True
                    self._house.started(self._index)
                else:
                    self._cause, self._raised = news.text, True
        if reports:
            self._house.completed(self._index, reports)
        if gone:
            self._bury()

    def _bury(self) -> None:
        """The process has closed its end: make sure it is dead, then tell."""
        assert self._process
        self.close()
        self._process.kill()
        code = self._process.wait()
        if not self._cause:
            self._cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        self._house.stopped(self._index, self._cause, self._raised and not self._up)
