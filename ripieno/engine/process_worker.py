"""A worker in a process, seen from the engine. Same interface and results as `worker.ThreadWorker`."""

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

from ripieno.engine.event_loop import EventLoop
from ripieno.engine.messages import LONGEST, MessageKind, RunBatch, WorkerSetup, pack, pack_setup, unpack_messages
from ripieno.engine.model_runner import Load, WorkerConfig, load_name
from ripieno.engine.ring_memory import Memory
from ripieno.engine.worker import Report, WorkerEvents
from ripieno.resources import thread_variables
from ripieno.types import Input


class ProcessWorker:
    """Worker in a process, which imports only Python, NumPy and its backend (see `worker_main`)."""

    def __init__(
        self,
        index: int,
        config: WorkerConfig,
        load: Load,
        memory: Memory,
        events: WorkerEvents,
        *,
        event_loop: EventLoop,
        input: Input,
    ) -> None:
        self._index, self._memory, self._events, self._event_loop = index, memory, events, event_loop
        members, capacity, *output = memory.predictions.shape
        # a backend does not need learning curves, losses and costs; they would only enlarge the setup
        models = tuple(
            dataclasses.replace(s, member=dataclasses.replace(s.member, curve=(), losses={}, costs={}))
            for s in config.models
        )
        config = dataclasses.replace(config, models=models)
        self._setup = WorkerSetup(load_name(load), config, capacity, members, tuple(output), input)
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks: socket.socket | None = None
        self._life: socket.socket | None = None
        self._pinged_at: float | None = None
        self._cause = ""
        self._up = self._failed = self._answers_pings = False

    @property
    def process(self) -> int:
        """Process id of the worker, 0 before its start."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start a process; it inherits one end of two socket pairs and the shared memory."""
        self._cause, self._pinged_at = "", None
        self._up = self._failed = self._answers_pings = False
        self._tasks, tasks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._life, life = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        setup = os.memfd_create("ripieno-setup", os.MFD_CLOEXEC)
        with tasks, life, os.fdopen(setup, "r+b") as stdin:
            stdin.write(pack_setup(self._setup))
            stdin.seek(0)
            inherited = (self._memory.descriptor, tasks.fileno(), life.fileno())
            call = f"from ripieno.engine.worker_main import main; main{(os.getpid(), *inherited)!r}"
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {call}"],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                pass_fds=inherited,
                env={**os.environ, **thread_variables(self._setup.config.threads)},
            )
        for end in (self._tasks, self._life):
            end.setblocking(False)
        self._event_loop.watch(self._tasks.fileno(), self._read_messages)
        self._event_loop.watch(self._life.fileno(), self._read_pong)

    def send(self, tasks: Sequence[RunBatch]) -> None:
        """Send tasks in one packet; if that fails, the worker is dying, which its socket reports."""
        end = self._tasks
        if end:
            with contextlib.suppress(OSError):
                end.send(pack(tasks))

    def kill(self, cause: str) -> None:
        """Send SIGKILL; the end of its socket reports the death."""
        self._cause = self._cause or cause
        if self._process:
            self._process.kill()

    def ping(self, now: float) -> float:
        """Send a ping on the lifeline unless one is open; the first only after a message from the process."""
        if self._pinged_at is not None:
            return now - self._pinged_at
        if self._life and self._answers_pings:
            with contextlib.suppress(OSError):
                self._life.send(b"?")
                self._pinged_at = now
        return 0.0

    def close(self) -> None:
        """Close both sockets; the process then ends itself."""
        for end in (self._tasks, self._life):
            if end:
                self._event_loop.unwatch(end.fileno())
                end.close()
        self._tasks = self._life = None

    def join(self, until: float) -> None:
        """Wait for the end of the process; send SIGKILL at `until`."""
        if not self._process:
            return
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read_pong(self) -> None:
        assert self._life
        try:
            if self._life.recv(16):
                self._answers_pings, self._pinged_at = True, None
                return
        except OSError:
            pass
        self._event_loop.unwatch(self._life.fileno())  # it is dying; its other socket reports the death

    def _read_messages(self) -> None:
        assert self._tasks
        reports: list[Report] = []
        gone = False
        while True:
            try:
                packet = self._tasks.recv(LONGEST)
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if not packet:
                gone = True
                break
            for message in unpack_messages(packet):
                if message.kind is MessageKind.DONE:
                    reports.append((message.assignment, message.seconds, None))
                elif message.kind is MessageKind.READY:
                    self._events.model_ready(self._index, message.unit, message.seconds)
                elif message.kind is MessageKind.UP:
                    self._up = True
                    self._events.started(self._index)
                else:
                    self._cause, self._failed = message.text, True
        if reports:
            self._events.completed(self._index, reports)
        if gone:
            self._reap()

    def _reap(self) -> None:
        """Reap the process that has closed its socket, and report its end."""
        assert self._process
        self.close()
        self._process.kill()
        code = self._process.wait()
        if not self._cause:
            end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            self._cause = f"The worker {end}"
        self._events.stopped(self._index, self._cause, self._failed and not self._up)
