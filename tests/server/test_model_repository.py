"""Reloads of bundles under load, several bundles, and the memory check before loading."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.library.bundle import model_path
from ripieno.server import Client, Limits, start_in_thread
from ripieno.server.model_repository import BASE_BYTES, check_memory, needed_bytes
from ripieno.server.scratch import PREFIX
from ripieno.types import Bundle
from tests.child_processes import find_children
from tests.server.stand_in import CLASSES, MEMBERS, ROOT, StandIn, direct_answers, write_small_bundle


@pytest.fixture
def two(tmp_path: Path) -> tuple[Bundle, Bundle]:
    """Write two bundles with the same member names and different weights."""
    return write_small_bundle(tmp_path / "one", seed=1), write_small_bundle(tmp_path / "two", seed=50)


def test_a_reload_under_load_fails_no_request(
    two: tuple[Bundle, Bundle], images: NDArray[np.uint8], tmp_path: Path
) -> None:
    served = tmp_path / "served"
    shutil.copytree(two[0].path, served)
    either = [direct_answers(b, images).mean(axis=0) for b in two]
    over = threading.Event()
    seen: list[int] = []

    def ask() -> None:
        with Client(running.url) as client:
            while not over.is_set():
                said = client.infer(images)
                fits = [np.allclose(said, expected, atol=1e-5) for expected in either]
                seen.append(fits.index(True))

    with start_in_thread(served) as running:
        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        time.sleep(0.2)
        for source in (two[1], two[0], two[1]):
            shutil.copytree(source.path, served, dirs_exist_ok=True)
            assert running.reload()
        seen_before = len(seen)
        time.sleep(0.2)
        over.set()
        for thread in asking:
            thread.join()
        assert len(seen) > seen_before > 3
        assert set(seen) == {0, 1}
        assert seen[-1] == 1
        stats = httpx.get(running.url + "/v2/models/ensemble/stats", trust_env=False).json()["model_stats"][0]
        assert stats["inference_count"] == 5 * len(seen), "counts go on over an exchange"


def test_a_body_half_sent_at_a_reload_is_answered(two: tuple[Bundle, Bundle], images: NDArray[np.uint8]) -> None:
    with start_in_thread(two[0].path) as running:
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            body = images.tobytes()
            head = "POST /v2/models/ensemble/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: 0\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:300])
            time.sleep(0.1)
            exchange = threading.Thread(target=running.reload)
            exchange.start()
            time.sleep(0.5)
            client.sendall(body[300:])
            said = client.recv(65536)
            exchange.join()
    assert said.startswith(b"HTTP/1.1 200")


def test_a_broken_bundle_leaves_the_old_one_in_place(
    two: tuple[Bundle, Bundle], images: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    with start_in_thread(two[0].path) as running, Client(running.url) as client:
        before = client.infer(images)
        (two[0].path / "bundle.json").write_text("{}")
        assert not running.reload()
        np.testing.assert_array_equal(client.infer(images), before)
    assert "failed; still serving the previous version" in caplog.text


def test_sighup_reloads_the_bundle(two: tuple[Bundle, Bundle], images: NDArray[np.uint8]) -> None:
    code = (
        "import sys; from ripieno.server import serve; serve(sys.argv[1], port=0, ready=lambda u: print(u, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(two[0].path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with Client(url) as client:
            client.infer(images)
            expected = direct_answers(two[1], images).mean(axis=0)
            shutil.copytree(two[1].path, two[0].path, dirs_exist_ok=True)
            process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 20
            while not np.allclose(client.infer(images), expected, atol=1e-5):
                assert time.monotonic() < until, "the new bundle never answered"
                time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_an_engine_keeps_the_files_it_began_with_when_its_link_is_turned(
    two: tuple[Bundle, Bundle], images: NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(two[0].path)
    with start_in_thread(tmp_path / "link", isolation="process") as running, Client(running.url) as client:
        before = client.infer(images)
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        (lane,) = client.overview()["bundles"]["ensemble"]["engine"]["lanes"]
        os.kill(lane["process"], signal.SIGKILL)
        np.testing.assert_array_equal(client.infer(images), before)


def test_the_repository_loads_only_when_allowed_and_only_what_is_served(two: tuple[Bundle, Bundle]) -> None:
    load = "/v2/repository/models/{}/load"
    with start_in_thread(two[0].path) as running:
        assert httpx.post(running.url + load.format("ensemble"), trust_env=False).status_code == 403
    with start_in_thread(two[0].path, reload=True) as running:
        assert httpx.post(running.url + load.format("ensemble"), trust_env=False).status_code == 200
        for nothing in (b"{}", b"null", b'{"parameters": null}', b'{"parameters": {"config": null}}'):
            taken = httpx.post(running.url + load.format("ensemble"), content=nothing, trust_env=False)
            assert taken.status_code == 200, nothing
        for override in (
            b'{"parameters": {"config": "{}"}}',
            b'{"parameters": {"file:1/model.onnx": "eA=="}}',
            b'{"parameters": 5}',
            b'{"parameters": [1]}',
            b'{"config": "{}"}',
            b"[",
            b"7",
        ):
            refused = httpx.post(running.url + load.format("ensemble"), content=override, trust_env=False)
            assert refused.status_code == 400, override
        assert httpx.post(running.url + load.format("other"), trust_env=False).status_code == 404
        assert httpx.post(running.url + load.format("..%2f..%2fetc"), trust_env=False).status_code == 404
        (two[0].path / "bundle.json").unlink()
        assert httpx.post(running.url + load.format("ensemble"), trust_env=False).status_code == 500


def test_the_json_of_a_load_request_is_bounded_as_that_of_an_inference(engine: StandIn) -> None:
    with start_in_thread(engine, reload=True, limits=Limits(json=100)) as running:
        load = running.url + "/v2/repository/models/ensemble/load"
        assert httpx.post(load, content=b" " * 101, trust_env=False).status_code == 413


def test_several_bundles_answer_side_by_side(two: tuple[Bundle, Bundle], images: NDArray[np.uint8]) -> None:
    with start_in_thread({"left": two[0].path, "right": two[1].path}) as running:
        for name, bundle in zip(("left", "right"), two, strict=True):
            each = direct_answers(bundle, images)
            with Client(running.url, model=name) as client:
                np.testing.assert_allclose(client.infer(images), each.mean(axis=0), atol=1e-5)
            with Client(running.url, model=f"{name}.{bundle.ensemble.members[1]}") as client:
                np.testing.assert_allclose(client.infer(images), each[1], atol=1e-5)
        index = httpx.post(running.url + "/v2/repository/index", trust_env=False).json()
        assert len(index) == 6


@pytest.mark.parametrize("names", [[], ["a/b"], [".."], [""], ["ensemble", "x" * 65]])
def test_names_of_models_are_plain(bundle: Bundle, names: list[str]) -> None:
    with pytest.raises(RipienoError, match="model names are"):
        start_in_thread({name: StandIn(bundle) for name in names})


@pytest.mark.parametrize("names", [("ensemble", MEMBERS[0]), (MEMBERS[0], "ensemble")])
def test_a_bundle_called_as_a_member_of_another_is_refused(bundle: Bundle, names: tuple[str, str]) -> None:
    engine = StandIn(bundle)
    with pytest.raises(RipienoError, match=rf"Duplicate model name '{MEMBERS[0]}', .* with another NAME") as caught:
        start_in_thread(dict.fromkeys(names, engine))
    assert "\n" not in str(caught.value)
    engine.close()


def test_a_member_called_ensemble_is_served_where_the_bundle_has_another_name(bundle: Bundle) -> None:
    members = ("ensemble", MEMBERS[1])
    engine = StandIn(dataclasses.replace(bundle, ensemble=dataclasses.replace(bundle.ensemble, members=members)))
    with pytest.raises(RipienoError, match="Duplicate model name 'ensemble'"):
        start_in_thread(engine)
    with start_in_thread({"mine": engine}) as running:
        index = httpx.post(running.url + "/v2/repository/index", trust_env=False).json()
    assert [model["name"] for model in index] == ["mine", "mine.ensemble", f"mine.{MEMBERS[1]}"]
    engine.close()


def test_a_reload_that_would_take_the_name_of_another_model_leaves_the_old_bundle_in_place(
    two: tuple[Bundle, Bundle], bundle: Bundle, images: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    engine = StandIn(bundle)
    with start_in_thread({"ensemble": two[0].path, "00007-e001": engine}) as running, Client(running.url) as client:
        before = client.infer(images)
        write_small_bundle(two[0].path, members=("00007-e001",))
        assert not running.reload()
        np.testing.assert_array_equal(client.infer(images), before)
    assert "model ensemble failed; still serving the previous version: Duplicate model name '00007-e001'" in caplog.text
    engine.close()


def test_a_bundle_that_does_not_fit_is_refused_before_it_is_loaded(bundle: Bundle) -> None:
    needed = needed_bytes(bundle)
    assert needed > BASE_BYTES
    check_memory(bundle, needed)
    with pytest.raises(RipienoError, match=r"needs about 9[67] MiB, 50 MiB are free"):
        check_memory(bundle, 50 << 20)


def test_a_model_is_ready_whatever_other_bundles_are(two: tuple[Bundle, Bundle]) -> None:
    import tritonclient.grpc as triton

    up, down = StandIn(two[0]), StandIn(two[1])
    down.close()
    with (
        start_in_thread({"up": up, "down": down}, grpc_port=0) as running,
        triton.InferenceServerClient(running.grpc) as client,
    ):
        for name, status in (("up", 200), ("down", 503), (f"up.{MEMBERS[0]}", 200), (f"down.{MEMBERS[0]}", 503)):
            asked = httpx.get(f"{running.url}/v2/models/{name}/ready", trust_env=False)
            assert (asked.status_code, client.is_model_ready(name)) == (status, status == 200), name
        assert httpx.get(f"{running.url}/v2/health/ready", trust_env=False).status_code == 503
    up.close()


def test_a_reload_of_a_bundle_that_cannot_predict_leaves_the_old_bundle(
    two: tuple[Bundle, Bundle], images: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    """The new networks have four outputs for three classes: loading succeeds, only a prediction fails."""
    with start_in_thread(two[0].path) as running, Client(running.url) as client:
        expected = client.infer(images)
        document = json.loads((two[0].path / "bundle.json").read_text())
        for part in (document, *document["members"]):
            part["task"] |= {"output": [3], "names": list(CLASSES[:3])}
        (two[0].path / "bundle.json").write_text(json.dumps(document))
        assert not running.reload()
        assert "reload of model ensemble failed" in caplog.text
        np.testing.assert_array_equal(client.infer(images), expected)
        assert httpx.get(running.url + "/v2/health/ready", trust_env=False).status_code == 200


def test_a_worker_that_starts_again_loads_what_its_engine_began_with(
    two: tuple[Bundle, Bundle], images: NDArray[np.uint8]
) -> None:
    with start_in_thread(two[0].path, isolation="process") as running, Client(running.url) as client:
        expected = client.infer(images)
        shutil.copytree(two[1].path / "members", two[0].path / "members", dirs_exist_ok=True)
        (two[0].path / "bundle.json").write_text("{")
        assert not running.reload()
        for child in find_children("python"):
            child.kill()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if httpx.get(running.url + "/v2/health/ready", trust_env=False).status_code == 200:
                break
            time.sleep(0.1)
        np.testing.assert_allclose(client.infer(images), expected, atol=1e-6)


def test_copies_of_networks_go_with_their_engines(
    two: tuple[Bundle, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with start_in_thread(two[0].path) as running:
        assert len(list((tmp_path / "tmp").glob("ripieno-*"))) == 1
        assert running.reload()
        assert len(list((tmp_path / "tmp").glob("ripieno-*"))) == 1
    assert not list((tmp_path / "tmp").glob("ripieno-*"))


def test_a_server_without_a_place_for_copies_serves_all_the_same(
    two: tuple[Bundle, Bundle],
    images: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This happens in a container with a read-only root."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with start_in_thread(two[0].path) as running, Client(running.url) as client:
        assert client.infer(images).shape == (len(images), 4)
    assert "cannot copy the files" in caplog.text


def test_every_failure_of_a_reload_is_logged(
    two: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This includes unexpected exceptions."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("unforeseen")

    with start_in_thread(two[0].path) as running:
        monkeypatch.setattr("ripieno.server.model_repository.warm_up", fail)
        assert not running.reload()
        assert "failed; still serving the previous version: ZeroDivisionError: unforeseen" in caplog.text
        monkeypatch.undo()
        assert running.reload()


def test_a_failure_names_the_folder_that_was_given(
    two: tuple[Bundle, Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    with start_in_thread(two[0].path) as running:
        model_path(two[0], MEMBERS[0]).write_bytes(b"no network")
        assert not running.reload()
    assert str(model_path(two[0], MEMBERS[0])) in caplog.text
    assert PREFIX not in caplog.text


def test_reloads_that_are_requested_together_are_few(
    two: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of many signals starts a reload at once; a single reload after it handles all others."""
    loaded = []

    def count(engine: object) -> None:
        loaded.append(engine)
        time.sleep(0.3)

    monkeypatch.setattr("ripieno.server.model_repository.warm_up", count)
    with start_in_thread(two[0].path) as running:
        asked = [running._server.reload() for _ in range(30)]
        assert all(one.result(timeout=60) for one in asked)
    assert len(loaded) <= 3


def test_a_server_that_stops_does_not_wait_for_a_bundle_that_is_loaded(
    two: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, over = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        loading.set()
        over.wait(30)

    monkeypatch.setattr("ripieno.server.model_repository.warm_up", wait)
    running = start_in_thread(two[0].path)
    running._server.reload()
    assert loading.wait(20)
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 10
    over.set()


def test_a_forked_child_that_leaves_takes_nothing_from_the_server(
    two: tuple[Bundle, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with start_in_thread(two[0].path) as running:
        if not (child := os.fork()):
            running.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        (copies,) = (tmp_path / "tmp").iterdir()
        assert (copies / "members" / MEMBERS[0] / "model.onnx").is_file()
        assert httpx.get(running.url + "/v2/health/ready", trust_env=False).status_code == 200
