"""Triton's own load generator runs against a server over HTTP and gRPC, in binary, in JSON and with several streams.

tritonclient's wheels (2.43 to 2.50) contain its binary, which needs libb64 and CUDA's runtime library. The test
searches the PATH and PERF_ANALYZER.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ripieno.server import ServerHandle, start_in_thread
from ripieno.types import Bundle
from tests.server.stand_in import SHAPE

COMMAND = os.environ.get("PERF_ANALYZER") or shutil.which("perf_analyzer")
pytestmark = pytest.mark.skipif(COMMAND is None, reason="needs perf_analyzer on the PATH or in PERF_ANALYZER")


@pytest.fixture(scope="module")
def serving(bundle: Bundle) -> Iterator[ServerHandle]:
    with start_in_thread(bundle, grpc_port=0) as running:
        yield running


@pytest.mark.parametrize("model", ["ensemble", "00001-e009"])
@pytest.mark.parametrize(
    "how",
    [
        ["-i", "http"],
        ["-i", "http", "--input-tensor-format", "json", "--output-tensor-format", "json"],
        ["-i", "http", "-b", "4"],
        ["-i", "grpc"],
        ["-i", "grpc", "-a"],
    ],
    ids=["http", "json", "batches of 4", "grpc", "grpc, asynchronous"],
)
def test_perf_analyzer_measures_without_an_error(
    serving: ServerHandle, model: str, how: list[str], tmp_path: Path
) -> None:
    assert COMMAND is not None
    address = serving.grpc if "grpc" in how else serving.url.removeprefix("http://")
    words = ["-m", model, "-u", str(address), "--concurrency-range", "1:4:3", "-p", "300", "-r", "3", "-s", "1000"]
    shape = ",".join(map(str, SHAPE))
    asked = [COMMAND, *words, *how, "--shape", f"images:{shape}", "-f", "measured.csv"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "measured.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["Concurrency"] for row in rows] == ["1", "4"]
    assert all(float(row["Inferences/Second"]) > 0 for row in rows)
