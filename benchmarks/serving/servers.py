"""Servers as processes: started, asked until they answer, paused, weighed, ended with all their children."""

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
"""The tree of this project's code."""
PATIENCE = 90.0
"""Seconds within which a server must give right answers."""
WARMING = 0.3
"""Seconds that each load is put on a server before it is measured."""
ENDING = 3.0
"""Seconds that a server is given to end by itself."""
SETTLING = 0.2
"""Seconds a server is given after a pause."""


class CannotStartError(Exception):
    """A server that does not answer, and why, in one line."""


class Running:
    """A server under way; a context manager that ends it."""

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
        """Until it has answered a little of every load, all right. Raises CannotStartError when it does not in time."""
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
                    raise CannotStartError(f"{reason}; last words: {self._last_words()}") from None

    def tree(self) -> list[psutil.Process]:
        """Its process and all below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self._process.pid)
            return [own, *own.children(recursive=True)]
        return []

    def memory(self) -> float:
        """MiB of the tree, shared pages counted once."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / (1 << 20)

    def pause(self) -> None:
        """Stop every process."""
        self._signal(signal.SIGSTOP, self.tree())

    def resume(self) -> None:
        """Let them go on, children first, and see to the timers that ran out meanwhile."""
        self._signal(signal.SIGCONT, self.tree()[::-1])
        time.sleep(SETTLING)

    def stop(self) -> None:
        """SIGTERM to the server, then SIGKILL to what is left of its tree."""
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

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][-160:] if lines else "none"

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def awake(server: Running) -> Iterator[Running]:
    """Let a stopped server go on for a while."""
    server.resume()
    yield server
    server.pause()


def ours(bundle: Path, isolation: str, within: float = 1e-4, tree: Path = TREE, grpc: bool = False) -> Running:
    """This project's server, of the code in `tree`: over HTTP or, with `grpc`, over gRPC."""
    port, grpc_port = free_port(), free_port() if grpc else 0
    server = Server(f"127.0.0.1:{grpc_port}", "grpc") if grpc else Server(f"127.0.0.1:{port}")
    command = [sys.executable, "-c", SERVE, str(bundle.resolve()), isolation, str(port), str(grpc_port)]
    # the working folder comes first on the path of `python -c`, PYTHONPATH is for the processes of lanes
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{os.environ.get('PYTHONPATH', '')}"}
    return Running(command, dataclasses.replace(server, within=within), environment, tree)


def start(peer: Peer, setting: str, folder: Path, cores: int) -> Running:
    """A peer's server in one of its settings, in its own environment."""
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
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
