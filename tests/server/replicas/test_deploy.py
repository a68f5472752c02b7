"""`ripieno deploy` on a real Ray cluster of one node. Needs the extra `cluster`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from ripieno.server import infer
from tests.server.stand_in import ROOT, direct_answers, write_small_bundle

REASON = "needs Ray Serve: pip install 'ripieno[cluster]'"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("ray.serve", reason=REASON, exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of Ray itself
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
        yield cluster.address
        cluster.shutdown()


def count_serve_processes() -> int:
    return sum("ray::Serve" in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))


@pytest.mark.filterwarnings("ignore")
def test_a_bundle_is_deployed_queried_and_removed_again(address: str, tmp_path: Path) -> None:
    bundle, before = write_small_bundle(tmp_path / "bundle"), count_serve_processes()
    command = [sys.executable, "-m", "ripieno", "deploy", str(bundle.path), "--address", address, "--port", "0"]
    with subprocess.Popen(
        [*command, "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        try:
            result = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
            images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
            np.testing.assert_allclose(infer(result["url"], images), direct_answers(bundle, images).mean(0), atol=1e-6)
            (node,) = result["nodes"]
            assert {p["member"] for p in node["allocation"]["placements"]} == set(bundle.ensemble.members)
            assert len(node["allocation"]["devices"][0]["cores"]) == 1
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert count_serve_processes() == before


def test_an_absent_cluster_is_an_error_of_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason=REASON)
    bundle = write_small_bundle(tmp_path / "bundle")
    command = [sys.executable, "-m", "ripieno", "deploy", str(bundle.path), "--address", "127.0.0.1:1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no Ray cluster at '127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr
