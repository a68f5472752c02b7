"""Servers as processes: start, wait until they answer, pause, measure memory, stop with all children."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from client import LOADS, Client, Server, WrongAnswerError
from install import Peer

SERVE = """import sys
from ripieno.server import serve
bundle, isolation, port, grpc_port = sys.argv[1:]
serve(bundle, isolation=isolation, port=int(port), grpc_port=int(grpc_port) or None)
"""
TREE = Path(__file__).parents[2].resolve()
"""Tree of this project's code."""
PATIENCE = 90.0
"""Start timeout in seconds: a server must give right answers by then."""
WARMING = 0.3
"""Warm-up in seconds at each load, before a server is measured."""
ENDING = 3.0
"""Stop timeout in seconds, before SIGKILL."""
SETTLING = 0.2
"""Recovery time in seconds after a pause."""


class CannotStartError(Exception):
    """A server does not answer; the message is one line."""


class Running:
    """A running server; a context manager that stops it."""

    def __init__(
        self,
        command: list[str],
        server: Server,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.server = server
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, env=environment, cwd=folder, start_new_session=True
        )

    def wait(self, client: Client) -> None:
        """Wait until it answers some of every load correctly. Raises CannotStartError on a timeout."""
        until = time.monotonic() + PATIENCE
        while True:
            time.sleep(0.25)
            try:
                for load in LOADS:
                    client.ask(self.server, load, WARMING)
                return
            except WrongAnswerError as error:
                ended = self._process.poll()
                if "is off by" in str(error) or ended is not None or time.monotonic() > until:
                    reason = f"{error}" if ended is None else f"ended with status {ended}"
                    raise CannotStartError(f"{reason}; last log line: {self._last_line()}") from None

    def tree(self) -> list[psutil.Process]:
        """Return its process and all below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self._process.pid)
            return [own, *own.children(recursive=True)]
        return []

    def memory(self) -> float:
        """Return MiB of the tree, shared pages counted once."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / (1 << 20)

    def pause(self) -> None:
        """Stop every process."""
        self._signal(signal.SIGSTOP, self.tree())

    def resume(self) -> None:
        """Resume every process, children first, and wait for expired timers."""
        self._signal(signal.SIGCONT, self.tree()[::-1])
        time.sleep(SETTLING)

    def stop(self) -> None:
        """Send SIGTERM to the server, then SIGKILL to the rest of its tree."""
        self.resume()
        tree = self.tree()
        self._signal(signal.SIGTERM, tree[:1])
        psutil.wait_procs(tree, ENDING)
        self._signal(signal.SIGKILL, [process for process in tree if process.is_running()])
        self._process.wait()
        self._log.close()

    def _signal(self, number: int, processes: list[psutil.Process]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][-160:] if lines else "none"

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def awake(server: Running) -> Iterator[Running]:
    """Resume a paused server for a while."""
    server.resume()
    yield server
    server.pause()


def ours(bundle: Path, isolation: str, within: float = 1e-4, tree: Path = TREE, grpc: bool = False) -> Running:
    """Start this project's server from the code in `tree`: over HTTP or, with `grpc`, over gRPC."""
    port, grpc_port = free_port(), free_port() if grpc else 0
    server = Server(f"127.0.0.1:{grpc_port}", "grpc") if grpc else Server(f"127.0.0.1:{port}")
    command = [sys.executable, "-c", SERVE, str(bundle.resolve()), isolation, str(port), str(grpc_port)]
    # the working folder comes first on the path of `python -c`; worker processes use PYTHONPATH
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{os.environ.get('PYTHONPATH', '')}"}
    return Running(command, dataclasses.replace(server, within=within), environment, tree)


def start(peer: Peer, setting: str, folder: Path, cores: int) -> Running:
    """Start a peer's server in one of its settings, in its own environment."""
    port = free_port()
    path = "/v2/models/ensemble/infer" if peer.protocol == "oip" else "/predict"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    home = str(peer.executable.parent)
    environment = {
        **os.environ,
        **threads,
        "PATH": f"{home}:{os.environ.get('PATH', '')}",
        "VIRTUAL_ENV": str(peer.home / "venv"),
        "PYTHONPATH": str(peer.script.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [str(peer.executable), str(peer.script), str(folder), str(port), str(cores), setting]
    return Running(command, Server(f"127.0.0.1:{port}", peer.protocol, path), environment)


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
