"""Labels that come after the answers, and the folder of kept inputs: a real server over a socket."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from ripieno.data import load_dataset
from ripieno.data.evaluation_data import read_evaluation_data
from ripieno.data.fingerprint import fingerprint
from ripieno.errors import DataError, RipienoError
from ripieno.server import ServerHandle, start_in_thread
from ripieno.server.config import ServerConfig
from ripieno.server.kept_folder import KeptFolder
from ripieno.server.label_files import LabelFolder
from ripieno.server.label_store import LabelRequest, LabelStore, wilson
from ripieno.server.watcher import WatchedRequest
from ripieno.types import Bundle
from tests.server.stand_in import CLASSES, write_small_bundle, write_table_bundle
from tests.server.test_watcher import infer, pictures, write_watched

LABELS = "/v2/models/ensemble/labels"


@pytest.fixture
def watched(tmp_path: Path) -> Bundle:
    return write_watched(tmp_path / "bundle")


def client(server: ServerHandle) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=20, trust_env=False)


def asked(http: httpx.Client, samples: int, name: str, seed: int = 1) -> list[int]:
    """Ask for predictions as the request `name`; return the predicted classes."""
    answer = infer(http, pictures(samples, seed=seed), headers={"x-request-id": name})
    assert answer.headers["x-request-id"] == name
    outputs = {one["name"]: one["data"] for one in answer.json()["outputs"]}
    return np.reshape(outputs["probabilities"], (samples, -1)).argmax(axis=1).tolist()


def test_labels_tell_the_live_accuracy_with_its_interval(watched: Bundle) -> None:
    with start_in_thread(watched.path, watch=True) as server, client(server) as http:
        predicted = asked(http, 8, "first")
        wrong = (predicted[0] + 1) % len(CLASSES)
        labels = [{"request": "first", "index": 0, "target": CLASSES[wrong]}]
        labels += [{"request": "first", "index": i, "target": predicted[i]} for i in range(1, 4)]
        done = http.post(LABELS, json={"labels": labels}).json()
        assert (done["accepted"], done["repeated"]) == (4, 0)
        live = done["live"]
        assert (live["labels"], live["samples"], live["accuracy"]) == (4, 4, 0.75)
        assert (live["accuracy_low"], live["accuracy_high"]) == wilson(0.75, 4)
        assert live["loss_low"] < live["loss"] < live["loss_high"]
        again = http.post(LABELS, json=labels[0]).json()
        assert (again["accepted"], again["repeated"]) == (0, 1)
        assert http.get("/v2/models/ensemble/drift").json()["live"] == live
        metrics = http.get("/metrics").text
        assert 'ripieno_live_accuracy{model="ensemble"} 0.75' in metrics
        assert 'ripieno_labels_total{model="ensemble"} 4.0' in metrics
        described = http.get("/openapi.json").json()["paths"]["/v2/models/{model}/labels"]["post"]
        assert "409" in described["responses"]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"request": "never", "target": 0}, 404, "request 'never' was not answered here"),
        ({"request": "first", "index": 9, "target": 0}, 404, "has 2 samples, and no index 9"),
        ({"request": "first", "index": 0, "target": "dodo"}, 400, "'dodo' is no class of the model"),
        ({"request": "first", "index": 0, "target": 99}, 400, "does not fit the model"),
        ({"request": "first", "index": 0, "target": {"a": 1}}, 400, "does not fit the model"),
        ({"request": "first", "index": 1, "target": 1}, 409, "has the target 0 already"),
        ({"request": "first"}, 400, "Cannot parse the labels"),
        ({"labels": []}, 400, "There are 0 labels"),
        ([1, 2], 400, "Cannot parse the labels"),
    ],
)
def test_labels_that_cannot_be_taken_change_nothing(watched: Bundle, body: Any, status: int, error: str) -> None:
    with start_in_thread(watched.path, watch=True) as server, client(server) as http:
        asked(http, 2, "first")
        assert http.post(LABELS, json={"request": "first", "index": 1, "target": 0}).status_code == 200
        both = {"labels": [{"request": "first", "index": 0, "target": 0}, *([body] if isinstance(body, dict) else [])]}
        if isinstance(body, dict) and "target" in body and body.get("index") != 0:
            assert http.post(LABELS, json=both).status_code == status  # all or none
        refused = http.post(LABELS, json=body)
        assert refused.status_code == status
        assert error in refused.json()["error"]
        assert "\n" not in refused.json()["error"]
        assert http.get("/v2/models/ensemble/drift").json()["live"]["labels"] == 1


def test_labels_need_watch_and_the_token(watched: Bundle) -> None:
    with start_in_thread(watched.path) as server, client(server) as http:
        assert http.post(LABELS, json={"request": "a", "target": 0}).status_code == 404
    with start_in_thread(watched.path, watch=True, token="secret-token") as server, client(server) as http:
        assert http.post(LABELS, json={"request": "a", "target": 0}).status_code == 401


def test_kept_inputs_with_labels_are_a_data_set(watched: Bundle, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with start_in_thread(watched.path, watch=True, keep=kept) as server, client(server) as http:
        asked(http, 30, "first", seed=1)
        asked(http, 5, "second", seed=2)
        targets = [i % len(CLASSES) for i in range(30)]
        labels = [{"request": "first", "index": i, "target": t} for i, t in enumerate(targets)]
        deadline = time.monotonic() + 20
        while http.get("/v2/models/ensemble/drift").json()["samples"] < 35:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert http.post(LABELS, json={"labels": labels}).json()["accepted"] == 30
    notes: list[str] = []
    found = read_evaluation_data(kept, watched.input, watched.task, notes=notes)
    assert np.array_equal(found.inputs, pictures(30, seed=1))
    assert found.targets.tolist() == targets
    assert notes == [f"{kept}: 30 of 35 kept samples have labels; the others are left out"]
    loaded = load_dataset(kept, notes=notes)
    assert loaded.task.names == watched.task.names
    assert len(loaded.inputs) == 30
    with start_in_thread(watched.path, watch=True, keep=kept) as server, client(server) as http:
        known = http.post(LABELS, json=labels[3])  # of an answer before the restart
        assert known.json()["repeated"] == 1
        assert http.post(LABELS, json={**labels[3], "target": targets[2]}).status_code == 409


def test_a_killed_server_loses_the_last_moments_only(watched: Bundle, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    words = [sys.executable, "-m", "ripieno", "serve", str(watched.path), "--port", "0", "--watch", "--keep", str(kept)]
    process = subprocess.Popen([*words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        url = ""
        assert process.stdout is not None
        for line in process.stdout:
            if "http://127.0.0.1:" in line:
                url = "http://127.0.0.1:" + line.partition("http://127.0.0.1:")[2][:5].strip('",/ ')
                break
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            asked(http, 10, "first")
            deadline = time.monotonic() + 20
            while http.get("/v2/models/ensemble/drift").json()["samples"] < 10:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert http.post(LABELS, json={"request": "first", "index": 2, "target": 1}).status_code == 200
            asked(http, 3, "later", seed=2)
            while len(list(kept.glob("*.npz"))) < 2:  # nothing more comes: what waits is written in time nevertheless
                assert time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    found = read_evaluation_data(kept, watched.input, watched.task, notes=[])
    assert found.targets.tolist() == [1]
    with start_in_thread(watched.path, watch=True, keep=kept) as server, client(server) as http:
        assert http.get("/v2/models/ensemble/drift").json()["live"]["samples"] == 1, "the figures go on"
        labels = [{"request": "later", "index": 1, "target": 0}, {"request": "first", "index": 2, "target": 1}]
        done = http.post(LABELS, json={"labels": labels}).json()
        assert (done["accepted"], done["repeated"]) == (1, 1), "kept samples take labels after a restart"


def request(name: str, samples: int) -> WatchedRequest:
    answers = np.full((samples, len(CLASSES)), 1 / len(CLASSES), np.float32)
    return WatchedRequest(name, pictures(samples), answers, None, False)


def test_the_oldest_segments_go_when_the_limit_is_reached(watched: Bundle, tmp_path: Path) -> None:
    each = request("a", 256).inputs.nbytes
    folder = KeptFolder(tmp_path / "kept", 3 * each, watched, "ensemble")
    for number in range(6):
        folder.add(request(f"r{number}", 256))
    folder.flush()
    folder.add(request("larger", 4 * 256))
    folder.close()
    names = sorted(path.name for path in (tmp_path / "kept").glob("*.npz"))
    assert 1 <= len(names) <= 24
    assert names[-1] > names[0] > "0000000001.npz"
    assert sum(path.stat().st_size for path in (tmp_path / "kept").glob("*.npz")) <= 3 * each


def test_a_full_disk_ends_keeping_once_and_not_watching(
    watched: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = KeptFolder(tmp_path / "kept", 1 << 30, watched, "ensemble")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ripieno.files.write_bytes", full)
    for _ in range(3):
        folder.add(request("a", 256))
    assert folder.failed
    said = [record.getMessage() for record in caplog.records if "nothing more is kept" in record.getMessage()]
    assert len(said) == 1
    assert "No space left" in said[0]


def test_folders_that_cannot_be_used_are_one_line(watched: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(RipienoError, match="holds other files"):
        KeptFolder(tmp_path / "mine", 1 << 20, watched, "ensemble")
    held = KeptFolder(tmp_path / "kept", 1 << 20, watched, "ensemble")
    with pytest.raises(RipienoError, match="in use by another server"):
        KeptFolder(tmp_path / "kept", 1 << 20, watched, "ensemble")
    held.close()
    other = write_small_bundle(tmp_path / "other", kind="regression")
    with pytest.raises(RipienoError, match="another task or shape"):
        KeptFolder(tmp_path / "kept", 1 << 20, other, "ensemble")
    with pytest.raises(DataError, match="no label of one"):
        load_dataset(tmp_path / "kept")
    (tmp_path / "kept" / "0000000001.npz").write_bytes(b"PK broken")
    with pytest.raises(DataError, match="is no segment of kept samples"):
        load_dataset(tmp_path / "kept")
    with pytest.raises(RipienoError, match="needs watch"):
        ServerConfig(keep=tmp_path / "kept")
    with pytest.raises(RipienoError, match="needs watch"):
        ServerConfig(labels=tmp_path / "labels")
    with pytest.raises(RipienoError, match="keep_bytes 'much' is not valid"):
        ServerConfig(watch=True, keep=tmp_path / "kept", keep_bytes="much")


@pytest.mark.parametrize(
    ("kind", "target", "kept"),
    [("regression", 2.5, [2.5]), ("multilabel", ["label1"], None), ("multilabel", [1, 0, 0, 1], [1, 0, 0, 1])],
)
def test_targets_of_other_tasks(tmp_path: Path, kind: str, target: Any, kept: Any) -> None:
    bundle = write_small_bundle(tmp_path / kind, kind=kind)
    outputs = len(bundle.task.names)
    store = LabelStore(bundle)
    store.remember("a", np.full((1, outputs), 0.5, np.float32))
    if kind == "regression":
        target = kept = [2.5] * outputs if outputs > 1 else target
    if kept is None:
        target, kept = [bundle.task.names[1]], [int(i == 1) for i in range(outputs)]
    elif kind == "multilabel":
        target = kept = ([1, 0] * outputs)[:outputs]
    done = store.add(json.dumps({"request": "a", "target": target}).encode())
    assert done["accepted"] == 1
    assert store.known["a", 0] == (kept if isinstance(kept, list) else [kept])
    assert "accuracy" not in done["live"]
    assert done["live"]["samples"] == 1


def test_answers_are_forgotten_beyond_the_limit(watched: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ripieno.server.label_store.ANSWERS", 3)
    store = LabelStore(watched)
    for name in "abc":
        store.remember(name, np.full((2, len(CLASSES)), 0.25, np.float32))
    assert list(store._answers) == ["c"]
    store.remember("c", np.full((1, len(CLASSES)), 0.25, np.float32))
    assert store._samples == 1


def test_an_answer_has_the_id_of_its_body_too(watched: Bundle) -> None:
    with start_in_thread(watched.path, watch=True) as server, client(server) as http:
        tensor = {"name": "images", "datatype": "UINT8", "shape": [1, *pictures(1).shape[1:]]}
        tensor |= {"data": pictures(1).ravel().tolist()}
        for name in ("a", "b", "b"):
            answer = http.post("/v2/models/ensemble/infer", json={"id": name, "inputs": [tensor]})
            assert answer.json()["id"] == name
        assert http.post(LABELS, json={"request": "a", "target": 0}).json()["accepted"] == 1
        refused = http.post(LABELS, json={"request": "b", "target": 0})
        assert refused.status_code == 409
        assert "2 requests have the id 'b'" in refused.json()["error"]
        by_header = http.post(LABELS, json={"request": answer.headers["x-request-id"], "target": 0})
        assert by_header.json()["accepted"] == 1


def kept_with(bundle: Bundle, folder: Path, *requests: WatchedRequest, labels: str = "") -> Path:
    held = KeptFolder(folder, 1 << 24, bundle, "ensemble")
    for one in requests:
        held.add(one)
    held.close()
    (folder / "labels.jsonl").write_text(labels, encoding="utf-8")
    return folder


def test_an_id_of_several_inputs_has_no_label(watched: Bundle, tmp_path: Path) -> None:
    other = request("twice", 1)._replace(inputs=pictures(1, seed=8))
    labels = '{"request": "twice", "target": 1}\n{"request": "same", "target": "dog"}\n{"request": "sa\n'
    kept = kept_with(
        watched, tmp_path / "kept", request("twice", 1), other, request("same", 2), request("same", 2), labels=labels
    )
    notes: list[str] = []
    found = read_evaluation_data(kept, watched.input, watched.task, notes=notes)
    assert found.targets.tolist() == [1], "a request that was sent again is one sample"
    assert any("1 lines are no labels" in note for note in notes)
    assert any("1 labelled samples are left out: requests with other inputs" in note for note in notes)


def test_broken_kept_folders_are_one_line(watched: Bundle, tmp_path: Path) -> None:
    kept = kept_with(watched, tmp_path / "kept", request("a", 2), labels='{"request": "a", "target": "dodo"}\n')
    with pytest.raises(DataError, match=r"labels.jsonl: .*'dodo' is no class of the model") as failed:
        load_dataset(kept)
    assert "\n" not in str(failed.value)
    (segment,) = kept.glob("*.npz")
    segment.write_bytes(segment.read_bytes()[:300])
    with pytest.raises(DataError, match="is no segment of kept samples"):
        load_dataset(kept)
    held = KeptFolder(kept, 1 << 24, watched, "ensemble")
    assert LabelStore(watched, held).live()["samples"] == 0, "the server starts nevertheless"


def test_a_kept_table_has_the_columns_of_the_bundle(tmp_path: Path) -> None:
    bundle = write_table_bundle(tmp_path / "bundle")
    rows = np.random.default_rng(0).normal(size=(40, bundle.input.shape[0])).astype(np.float32)
    answers = np.full((40, len(CLASSES)), 0.25, np.float32)
    labels = "".join(f'{{"request": "a", "index": {i}, "target": {i % 4}}}\n' for i in range(40))
    kept = kept_with(bundle, tmp_path / "kept", WatchedRequest("a", rows, answers, None, False), labels=labels)
    loaded = load_dataset(kept)
    assert loaded.columns == bundle.input.columns
    before = fingerprint(kept)
    assert before == fingerprint(kept)
    with open(kept / "labels.jsonl", "a") as file:
        file.write('{"request": "a", "target": 3}\n')
    assert before.digest != fingerprint(kept).digest, "tune sees that the data have changed"
    assert np.array_equal(loaded.inputs, rows)


def test_live_figures_are_of_the_ensemble_that_answers(watched: Bundle) -> None:
    store = LabelStore(watched)
    store.remember("old", np.full((2, len(CLASSES)), 0.25, np.float32))
    store.take([LabelRequest("old", 0)])
    assert store.live()["samples"] == 1
    members = watched.ensemble.members[:1]
    store.answer_by(dataclasses.replace(watched, ensemble=dataclasses.replace(watched.ensemble, members=members)))
    assert store.take([LabelRequest("old", 0, 1)]) == 1
    assert store.live() == {"labels": 2, "samples": 0}


def test_answering_does_not_wait_for_labels_on_their_way_to_the_disk(watched: Bundle, tmp_path: Path) -> None:
    held = KeptFolder(tmp_path / "kept", 1 << 24, watched, "ensemble")
    store = LabelStore(watched, held)
    store.remember("a", np.full((1, len(CLASSES)), 0.25, np.float32))
    with held._lock:  # as while a segment is written
        thread = threading.Thread(target=store.take, args=([LabelRequest("a", 0)],))
        thread.start()
        while not store._adding.locked():
            time.sleep(0.001)
        store.remember("b", np.full((1, len(CLASSES)), 0.25, np.float32))  # would wait for ever
        assert store.live()["labels"] == 0
    thread.join()
    assert store.live()["labels"] == 1


def test_the_journal_is_bounded(watched: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("kept_folder", "label_store"):
        monkeypatch.setattr(f"ripieno.server.{module}.MOST_LABELS", 3)
    held = KeptFolder(tmp_path / "kept", 1 << 24, watched, "ensemble")
    store = LabelStore(watched, held)
    store.remember("a", np.full((9, len(CLASSES)), 0.25, np.float32))
    for index in range(9):
        store.take([LabelRequest("a", 0, index)])
        assert len((tmp_path / "kept" / "labels.jsonl").read_bytes().splitlines()) <= 6
    assert [index for _, index in store.known] == [6, 7, 8]
    assert store.live()["labels"] == 9


def test_labels_come_as_files(watched: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LabelStore(watched)
    store.remember("a", np.full((9, len(CLASSES)), 0.25, np.float32))
    folder = LabelFolder(tmp_path / "labels", store)
    csv, lines = tmp_path / "labels" / "late.csv", tmp_path / "labels" / "late.jsonl"
    csv.write_text("request,target,index\na,dog,0\na,2,1\nnever,cat,0\na,dodo,2\na,cat,", encoding="utf-8")
    lines.write_text('{"request": "a", "index": 5, "target": "owl"}\nnonsense\n', encoding="utf-8")
    for _ in range(2):
        folder.read()
        assert store.known == {("a", 0): 1, ("a", 1): 2, ("a", 5): 2}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert f"2 of 4 labels of {csv} are not taken; the first, line 4: request 'never'" in said[0]
    assert f"1 of 2 labels of {lines} are not taken; the first, line 2" in said[1]
    with open(csv, "a", encoding="utf-8") as file:
        file.write("3\n")  # the rest of the line
    folder.read()
    assert store.known["a", 3] == 0


def test_a_server_reads_the_folder_of_labels(watched: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    with start_in_thread(watched.path, watch=True, labels=folder) as server, client(server) as http:
        asked(http, 1, "first")
        (folder / "a.csv").write_text("request,target\nfirst,cat\n", encoding="utf-8")
        deadline = time.monotonic() + 20
        while http.get("/v2/models/ensemble/drift").json()["live"]["labels"] < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
