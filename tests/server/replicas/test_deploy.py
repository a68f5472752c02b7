"""`ripieno deploy` on a real Ray cluster of one node. Needs the extra `cluster`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import compress
from pathlib import Path

import numpy as np
import psutil
import pytest

from ripieno.server import infer, start_in_thread
from ripieno.server.replicas.cluster import joined
from ripieno.server.replicas.deploy import open_router
from ripieno.tasks.uncertainty import mutual_information
from tests.server.stand_in import CLASSES, ROOT, direct_answers, write_small_bundle

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


@pytest.mark.filterwarnings("ignore")
def test_replicas_serve_the_tensors_of_the_task(address: str, tmp_path: Path) -> None:
    with joined(address):  # Ray Serve starts once
        for kind, names in (("regression", ["values"]), ("multilabel", ["probabilities", "labels"])):
            check_tensors(address, tmp_path / kind, kind, names)


def check_tensors(address: str, path: Path, kind: str, names: list[str]) -> None:
    """Check that replicas of a bundle of `kind` answer the tensors `names` as the members predict."""
    triton = pytest.importorskip("tritonclient.http")
    thresholds = (0.1, 0.9, 0.5, 0.5)
    bundle = write_small_bundle(path, kind=kind, thresholds=thresholds if kind == "multilabel" else ())
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    members = direct_answers(bundle, images)
    given = triton.InferInput("images", list(images.shape), "UINT8")
    given.set_data_from_numpy(images)
    more = ["mutual_information"] if kind == "multilabel" else []
    asked = [triton.InferRequestedOutput(name) for name in (*names, "spread", *more)]
    with (
        open_router(bundle.path, address) as router,
        start_in_thread(router) as server,
        contextlib.closing(triton.InferenceServerClient(server.url.removeprefix("http://"))) as client,
    ):
        plain = client.infer("ensemble", [given]).get_response()["outputs"]
        result = client.infer("ensemble", [given], outputs=asked)
    assert [o["name"] for o in plain] == names
    np.testing.assert_allclose(result.as_numpy(names[0]), members.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("spread"), members.std(0), rtol=1e-4, atol=1e-6)
    if kind == "multilabel":
        apart = mutual_information(members, np.full(len(members), 1 / len(members)), "sigmoid")
        np.testing.assert_allclose(result.as_numpy("mutual_information"), apart, rtol=1e-3, atol=1e-6)
        rows = ["|".join(compress(CLASSES, row >= thresholds)) for row in members.mean(0)]
        assert [word.decode() for word in result.as_numpy("labels")] == rows


def test_an_absent_cluster_is_an_error_of_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason=REASON)
    bundle = write_small_bundle(tmp_path / "bundle")
    command = [sys.executable, "-m", "ripieno", "deploy", str(bundle.path), "--address", "127.0.0.1:1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no Ray cluster at '127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr
