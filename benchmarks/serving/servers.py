"""Servers as processes: started, asked until they answer, paused, weighed, ended with all their children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from client import Client, Load, Server, WrongAnswerError
from install import Peer

SERVE = "import sys; from ripieno.server import serve;serve(sys.argv[1], port=int(sys.argv[2]), isolation=sys.argv[3])"
PATIENCE = 90.0
"""Seconds within which a server must give a right answer."""
SETTLING = 0.2
"""Seconds a server is given after a pause."""


class CannotStartError(Exception):
    """A server that does not answer, and why, in one line."""


class Running:
    """A server under way; a context manager that ends it."""

    def __init__(self, command: list[str], server: Server, environment: dict[str, str] | None = None) -> None:
        self.server = server
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, env=environment, start_new_session=True
        )

    def wait(self, client: Client) -> None:
        """Until an answer is right. Raises CannotStartError when none comes in time."""
        until = time.monotonic() + PATIENCE
        while True:
            time.sleep(0.25)
            try:
                client.ask(self.server, Load(1, 1), 0.0)
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
        psutil.wait_procs(tree, 10)
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


def ours(bundle: Path, isolation: str) -> Running:
    """This project's server."""
    port = free_port()
    return Running([sys.executable, "-c", SERVE, str(bundle), str(port), isolation], Server(f"127.0.0.1:{port}"))


def start(peer: Peer, folder: Path, cores: int) -> Running:
    """A peer's server, in its own environment."""
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
    command = [str(peer.executable), str(peer.script), str(folder), str(port), str(cores)]
    return Running(command, Server(f"127.0.0.1:{port}", peer.protocol, path), environment)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
