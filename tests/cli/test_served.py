"""`ripieno serve` and `ripieno top` as a person runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from ripieno.server import Client
from tests.server.stand_in import ROOT, write_small_bundle


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`ripieno serve ...` and the lines it printed until it answered."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ripieno", "serve", "--port", "0", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1] and not lines[-1].startswith("next"):
            lines.append(process.stdout.readline())
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def url_in(lines: list[str]) -> str:
    return next(word for line in lines for word in line.split() if word.startswith("http")).removesuffix("/v2")


def ripieno(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ripieno", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


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


@pytest.mark.parametrize("said", [["a", "b"], ["x=", "y=b"], ["x=a", "x=b"], ["../x=a", "y=b"]])
def test_bundles_are_one_folder_or_named_ones(said: list[str]) -> None:
    done = ripieno("serve", *said)
    assert done.returncode == 2
    assert "must be" in done.stderr
    assert "Traceback" not in done.stderr
