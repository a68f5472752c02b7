"""`ripieno serve` and `ripieno top` as a person runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from ripieno.server import Client
from tests.cli.serving import begun, lines_of, ripieno, serving, url_in
from tests.server.stand_in import MEMBERS, write_small_bundle


def test_a_bundle_is_served_watched_and_drained(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    with serving(str(bundle.path), "--grpc-port", "0", "--log") as (process, lines):
        url = url_in(lines)
        assert any(line.startswith("serving gRPC at 127.0.0.1:") for line in lines)
        with Client(url) as client:
            client.infer(np.zeros((3, 8, 8, 3), np.uint8))
        seen = ripieno("top", url, "--once", "--every", "0.2")
        assert seen.returncode == 0, seen.stderr
        for word in ("ready", "ensemble", "cpu:0 lane 0", *bundle.ensemble.members):
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
        assert "answered 401" in refused.stderr


def opened(pipe: Path, process: subprocess.Popen[str]) -> int:
    """The end of `pipe` to write to, once the process reads from it."""
    until = time.monotonic() + 30
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)


def test_sighup_while_the_bundle_is_loaded_exchanges_it_afterwards(tmp_path: Path) -> None:
    page = write_small_bundle(tmp_path).path / "bundle.json"
    both = page.rename(tmp_path / "both.json")
    alone = (write_small_bundle(tmp_path, members=MEMBERS[:1]).path / "bundle.json").read_bytes()
    page.unlink()
    os.mkfifo(page)  # the server waits for it while it loads
    with begun(str(tmp_path)) as process:
        pipe = opened(page, process)
        process.send_signal(signal.SIGHUP)
        both.replace(page)
        os.write(pipe, alone)
        os.close(pipe)
        url = url_in(lines_of(process))
        until = time.monotonic() + 20
        while len(httpx.post(url + "/v2/repository/index", trust_env=False).json()) < 1 + len(MEMBERS):
            assert time.monotonic() < until, "the bundle was not exchanged"
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize("said", [["a", "b"], ["x=", "y=b"], ["x=a", "x=b"], ["../x=a", "y=b"]])
def test_bundles_are_one_folder_or_named_ones(said: list[str]) -> None:
    done = ripieno("serve", *said)
    assert done.returncode == 2
    assert "must be" in done.stderr
    assert "Traceback" not in done.stderr
