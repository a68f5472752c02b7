"""The real engine in the real server: predictions equal ONNX Runtime's, also under concurrent requests of all kinds."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from ripieno.files import write_json
from ripieno.library import read_bundle
from ripieno.library.bundle import model_path
from ripieno.server import Client, ServerHandle, infer, start_in_thread
from ripieno.tasks.calibration import apply_temperature, combine_calibrated
from ripieno.types import Bundle, Cascade
from tests.server.stand_in import MEMBERS, ROOT, direct_answers


@pytest.fixture(scope="module", params=["thread", "process"])
def served(bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[ServerHandle]:
    with start_in_thread(bundle.path, isolation=request.param) as running:
        yield running


def test_the_served_ensemble_equals_the_mean_of_its_members(served: ServerHandle, bundle: Bundle) -> None:
    images = np.random.default_rng(5).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(infer(served.url, images), direct_answers(bundle, images).mean(axis=0), atol=1e-5)


def test_a_member_served_alone_equals_itself(served: ServerHandle, bundle: Bundle, images: NDArray[np.uint8]) -> None:
    with Client(served.url, model=MEMBERS[1]) as client:
        np.testing.assert_allclose(client.infer(images), direct_answers(bundle, images)[1], atol=1e-5)


def test_an_ensemble_with_temperatures_is_served_as_it_is_scored(
    tmp_path: Path, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    ensemble = dataclasses.replace(bundle.ensemble, temperatures=(1.6, 0.7), temperature=0.8)
    cascade = Cascade(MEMBERS, 2.0)
    write_json(
        tmp_path / "bundle" / "bundle.json",
        dataclasses.replace(bundle, ensemble=ensemble, path=Path(), cascade=cascade),
    )
    own = direct_answers(bundle, images)
    with start_in_thread(tmp_path / "bundle") as served:
        found = infer(served.url, images)
        with Client(served.url, model=MEMBERS[1]) as client:
            alone = client.infer(images)
    np.testing.assert_allclose(found, combine_calibrated(own, ensemble), atol=1e-6)
    np.testing.assert_allclose(alone, apply_temperature(own[1], 0.7), atol=1e-6)


def test_each_of_many_clients_gets_its_own_answer(served: ServerHandle, bundle: Bundle) -> None:
    images = np.random.default_rng(6).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    expected = direct_answers(bundle, images).mean(axis=0)

    def ask(first: int) -> None:
        with Client(served.url) as client:
            for i in range(first, 40, 8):
                np.testing.assert_allclose(client.infer(images[i : i + 3]), expected[i : i + 3], atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))


def test_spread_and_members_come_from_the_engine(
    served: ServerHandle, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    tensor = {"name": "images", "shape": [5, 8, 8, 3], "datatype": "UINT8", "data": images.ravel().tolist()}
    asked = {"inputs": [tensor], "outputs": [{"name": "members"}, {"name": "spread"}]}
    reply = httpx.post(served.url + "/v2/models/ensemble/infer", json=asked, trust_env=False).json()
    members, spread = (np.reshape(o["data"], o["shape"]) for o in reply["outputs"])
    np.testing.assert_allclose(members, direct_answers(bundle, images).transpose(1, 0, 2), atol=1e-5)
    assert spread.shape == (5,)


def test_a_cascade_says_how_many_members_were_asked_and_can_be_left_out(
    bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    own = direct_answers(bundle, images)
    sure = own[1].max(axis=1)
    turns = Cascade((MEMBERS[1], MEMBERS[0]), float(np.sort(sure)[2:4].mean()))
    depth = np.where(sure >= turns.threshold, 1, 2)
    expected = np.where(depth[:, None] == 1, own[1], own.mean(axis=0))
    tensor = {"name": "images", "shape": [5, 8, 8, 3], "datatype": "UINT8", "data": images.ravel().tolist()}
    outputs = [{"name": "probabilities"}, {"name": "depth"}]
    with start_in_thread(dataclasses.replace(bundle, cascade=turns)) as running:
        path = running.url + "/v2/models/ensemble/infer"
        in_turn = {"inputs": [tensor], "outputs": outputs}
        reply = httpx.post(path, json=in_turn, trust_env=False).json()
        whole = httpx.post(path, json={**in_turn, "parameters": {"cascade": False}}, trust_env=False).json()
    probabilities, asked = (np.reshape(o["data"], o["shape"]) for o in reply["outputs"])
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert asked.tolist() == depth.tolist()
    assert reply["parameters"] == {"members_asked": pytest.approx(depth.mean())}
    np.testing.assert_allclose(np.reshape(whole["outputs"][0]["data"], (5, 4)), own.mean(axis=0), atol=1e-5)
    assert whole["outputs"][1]["data"] == [2.0] * 5
    assert "parameters" not in whole


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_the_process_leaves_nothing_behind_after_sigterm(bundle: Bundle, isolation: str) -> None:
    code = (
        "import sys; from ripieno.server import serve;"
        "serve(sys.argv[1], port=0, isolation=sys.argv[2], ready=lambda url: print(url, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(bundle.path), isolation],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def spoilt(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerHandle]:
    """Start a server with a second member that always predicts NaN."""
    folder = tmp_path_factory.mktemp("spoilt") / "bundle"
    shutil.copytree(bundle.path, folder)
    path = model_path(read_bundle(folder), MEMBERS[1])
    model = onnx.load(str(path))
    bias = next(w for w in model.graph.initializer if w.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), "bias"))
    onnx.save(model, str(path))
    with start_in_thread(folder, grpc_port=0) as running:
        yield running


@pytest.mark.parametrize("parameters", [{}, {"partial": True}])
def test_an_answer_that_is_not_finite_is_an_error_that_names_the_member(
    spoilt: ServerHandle, images: NDArray[np.uint8], parameters: dict[str, bool]
) -> None:
    tensor = {"name": "images", "shape": [5, 8, 8, 3], "datatype": "UINT8", "data": images.ravel().tolist()}
    asked = {"inputs": [tensor], "parameters": parameters}
    reply = httpx.post(spoilt.url + "/v2/models/ensemble/infer", json=asked, trust_env=False)
    assert reply.status_code == 500
    assert f"Member {MEMBERS[1]} returned predictions that are not finite" in reply.json()["error"]
    assert "null" not in reply.text
    counted = httpx.get(spoilt.url + "/overview", trust_env=False).json()["models"]["ensemble"]
    assert counted["requests"] == 0


def test_members_other_than_one_that_is_not_finite_answer_alone(
    spoilt: ServerHandle, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    with Client(spoilt.url, model=MEMBERS[0]) as client:
        np.testing.assert_allclose(client.infer(images), direct_answers(bundle, images)[0], atol=1e-5)


def test_a_call_over_grpc_fails_with_the_member_that_is_not_finite(
    spoilt: ServerHandle, images: NDArray[np.uint8]
) -> None:
    triton = pytest.importorskip("tritonclient.grpc")
    tensor = triton.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    with triton.InferenceServerClient(spoilt.grpc) as client, pytest.raises(Exception, match="not finite") as caught:
        client.infer("ensemble", [tensor])
    assert "INTERNAL" in str(caught.value)
