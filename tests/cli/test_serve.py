"""`ripieno serve` and `ripieno top` as processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from ripieno.server import Client
from tests.cli.serving import begun, lines_of, serving, url_in
from tests.command_line import ripieno
from tests.server.stand_in import MEMBERS, ROOT, write_small_bundle
from tests.server.wire import soon


def test_a_bundle_is_served_watched_and_drained(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    with serving(str(bundle.path), "--grpc-port", "0", "--log") as (process, lines):
        url = url_in(lines)
        assert any(line.startswith("serving gRPC at 127.0.0.1:") for line in lines)
        with Client(url) as client:
            client.infer(np.zeros((3, 8, 8, 3), np.uint8))
        seen = ripieno("top", url, "--once", "--every", "0.2")
        assert seen.returncode == 0, seen.stderr
        for word in ("ready", "ensemble", "cpu:0 worker 0", *bundle.ensemble.members):
            assert word in seen.stdout
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert out == ""
        assert '"message":"answered"' in err


def test_several_bundles_and_a_token(tmp_path: Path) -> None:
    names = [f"{name}={write_small_bundle(tmp_path / name).path}" for name in ("left", "right")]
    with serving(*names, RIPIENO_TOKEN="s3cret") as (_, lines):
        url = url_in(lines)
        assert httpx.get(url + "/v2/models/left", trust_env=False).status_code == 401
        with Client(url, model="right", token="s3cret") as client:
            assert client.metadata()["name"] == "right"
        refused = ripieno("top", url, "--once", "--every", "0.1")
        assert refused.returncode == 2
        assert "returned 401" in refused.stderr


def catches(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Return whether the process has a handler for a signal."""
    line = next(x for x in Path(f"/proc/{process.pid}/status").read_text().splitlines() if x.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) & 1 << number - 1)


def test_sighup_while_the_bundle_is_loaded_reloads_it_afterwards(tmp_path: Path) -> None:
    page = write_small_bundle(tmp_path).path / "bundle.json"
    both = page.rename(tmp_path / "both.json")
    write_small_bundle(tmp_path, members=MEMBERS[:1])
    with begun(str(tmp_path)) as process:
        assert soon(lambda: catches(process, signal.SIGHUP))  # it loads from here on
        process.send_signal(signal.SIGSTOP)
        both.replace(page)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGCONT)
        url = url_in(lines_of(process))
        until = time.monotonic() + 20
        while len(httpx.post(url + "/v2/repository/index", trust_env=False).json()) < 1 + len(MEMBERS):
            assert time.monotonic() < until, "the bundle was not reloaded"
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize("arguments", [["a", "b"], ["x=", "y=b"], ["x=a", "x=b"], ["../x=a", "y=b"]])
def test_bundles_are_one_folder_or_named_ones(arguments: list[str]) -> None:
    done = ripieno("serve", *arguments)
    assert done.returncode == 2
    assert "must be" in done.stderr


def test_an_empty_token_in_the_environment_is_an_error(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    with begun(str(bundle.path), RIPIENO_TOKEN="") as process:
        _, err = process.communicate(timeout=30)
        assert process.returncode == 2
        assert "token is empty" in err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "> >(true)"])
def test_a_server_runs_without_its_standard_streams(tmp_path: Path, closed: str) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f'exec "$0" -m ripieno serve "$1" --port {port} {closed}'
    with subprocess.Popen(["bash", "-c", command, sys.executable, str(bundle.path)], cwd=ROOT) as process:
        with Client(f"http://127.0.0.1:{port}") as client:
            assert soon(lambda: _is_live(port))
            assert client.infer(np.zeros((3, 8, 8, 3), np.uint8)).shape == (3, 4)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def _is_live(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/health/live", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_log_that_is_not_read_blocks_nothing(tmp_path: Path) -> None:
    """More is logged than the 64 KiB that a pipe holds."""
    bundle = write_small_bundle(tmp_path / "bundle")
    with serving(str(bundle.path), "--log") as (process, lines), Client(url_in(lines)) as client:
        for _ in range(1000):
            client.infer(np.zeros((1, 8, 8, 3), np.uint8))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
