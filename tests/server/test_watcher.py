"""Watching for drift: a real server over a socket, whose requests leave the validation samples."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno import files
from ripieno.errors import LibraryError, RipienoError
from ripieno.library.validation_statistics import FILE
from ripieno.server import start_in_thread
from ripieno.server.watcher import QUEUE_SAMPLES, DriftWatcher, WatchedRequest
from ripieno.tasks.drift import BEGIN, END, WINDOW, ValidationStatistics, distribution_of, measure
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle, Cascade
from tests.server.stand_in import CLASSES, MEMBERS, SHAPE, direct_answers, write_small_bundle


def pictures(count: int, low: int = 0, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(low, 256, (count, *SHAPE), dtype=np.uint8)


def write_watched(path: Path, kind: str = "classification", low: int = 0) -> Bundle:
    """Write a bundle with the statistics of 1000 pictures, whose pixels are `low` or more."""
    bundle = write_small_bundle(path, kind=kind)
    taken = pictures(1000, low, seed=9)
    answers, kind_ = direct_answers(bundle, taken), kind_of(bundle.task)
    disagreement = kind_.member_disagreement(answers, np.full(2, 0.5))
    measured = measure(kind_, bundle.task, bundle.input, taken, kind_.combine(answers), disagreement)
    files.write_json(path / FILE, ValidationStatistics(1000, tuple(map(distribution_of, measured))))
    return bundle


@pytest.fixture
def watched(tmp_path: Path) -> Bundle:
    return write_watched(tmp_path / "bundle")


def infer(http: httpx.Client, images: NDArray[np.uint8], **more: Any) -> httpx.Response:
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    return http.post("/v2/models/ensemble/infer", json={"inputs": [tensor]}, **more)


def until_compared(http: httpx.Client, windows: int) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while (document := http.get("/v2/models/ensemble/drift").json())["windows"] < windows:
        assert time.monotonic() < deadline, document
        time.sleep(0.01)
    return dict(document)


def test_a_drift_is_named_in_log_metrics_and_document_and_ends(
    watched: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ripieno.server")
    with start_in_thread(watched.path, watch=True) as server, httpx.Client(base_url=server.url, timeout=20) as http:
        assert infer(http, pictures(2 * WINDOW, seed=1)).status_code == 200
        clean = until_compared(http, 2)
        assert not clean["drift"]
        assert clean["moved"] == []
        assert 'ripieno_drift{model="ensemble"} 0.0' in http.get("/metrics").text
        for part in np.split(pictures(BEGIN * WINDOW, low=128, seed=2), 2 * BEGIN):
            infer(http, part)
        found = until_compared(http, 2 + BEGIN)
        assert found["drift"]
        assert found["since"] == pytest.approx(time.time(), abs=60)
        assert "mean of channel 1 (higher)" in found["moved"]
        assert "ripieno reselect RUN BUNDLE --recent DATA" in found["advice"]
        by_name = {s["name"]: s for s in found["statistics"]}
        assert {"confidence", "disagreement", "predicted classes"} <= set(by_name)
        assert by_name["mean of channel 1"]["moved"]
        assert by_name["mean of channel 1"]["p"] < 1e-6
        metrics = http.get("/metrics").text
        assert 'ripieno_drift{model="ensemble"} 1.0' in metrics
        assert 'ripieno_drifts_total{model="ensemble"} 1.0' in metrics
        assert re.search(r'ripieno_drift_distance\{model="ensemble",subject="inputs"\} (0\.[5-9]|1\.0)', metrics)
        assert http.get("/overview").json()["models"]["ensemble"]["drift"]["drift"]
        assert "drift" not in http.get("/overview").json()["models"][MEMBERS[0]]
        infer(http, pictures(END * WINDOW, seed=3))
        assert not until_compared(http, 2 + BEGIN + END)["drift"]
        assert "/v2/models/{model}/drift" in http.get("/openapi.json").json()["paths"]
        missing = http.get(f"/v2/models/{MEMBERS[0]}/drift")
        assert (missing.status_code, missing.json()["error"]) == (
            404,
            f"Not watched: {MEMBERS[0]} is a single member. Ask for ensemble.",
        )
    lines = [r.getMessage() for r in caplog.records if "drift" in r.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith("drift of model ensemble began: ")
    assert "mean of channel 1 (higher)" in lines[0]
    assert lines[1].startswith("drift of model ensemble ended: ")


def test_watching_changes_no_answer(watched: Bundle) -> None:
    images = pictures(5)
    answers = []
    for watch in (False, True):
        with start_in_thread(watched.path, watch=watch) as server, httpx.Client(base_url=server.url) as http:
            answers.append(infer(http, images).json()["outputs"][0]["data"])
    assert answers[0] == answers[1]


def test_every_way_to_ask_is_watched_with_its_request_id(watched: Bundle) -> None:
    with start_in_thread(watched.path, watch=True) as server, httpx.Client(base_url=server.url, timeout=20) as http:
        watcher = server._server.app.models.engines["ensemble"].watcher
        assert watcher is not None
        seen: list[WatchedRequest] = []
        watcher.followers.append(seen.append)
        infer(http, pictures(1), headers={"x-request-id": "fast"})
        infer(http, pictures(2), headers={"x-request-id": "slow", "expect": "100-continue"})
        import io

        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(pictures(1)[0]).save(file, "PNG")
        own = {"x-request-id": "picture", "content-type": "image/png"}
        assert http.post("/predict", content=file.getvalue(), headers=own).status_code == 200
        watcher.flush()
        assert [(r.id, len(r.inputs)) for r in seen] == [("fast", 1), ("slow", 2), ("picture", 1)]
        assert np.array_equal(seen[1].inputs, pictures(2))
        assert seen[1].predictions.shape == (2, len(CLASSES))
        assert seen[1].disagreement is not None


def test_without_watch_the_path_says_how_to_start(bundle: Bundle) -> None:
    with start_in_thread(bundle.path) as server, httpx.Client(base_url=server.url) as http:
        answer = http.get("/v2/models/ensemble/drift")
    assert answer.status_code == 404
    assert answer.json()["error"] == (
        "Not watched: the server does not watch for drift. Start it with --watch (watch=True)."
    )


def test_a_bundle_without_statistics_is_refused_with_the_command(bundle: Bundle) -> None:
    with pytest.raises(LibraryError, match=r"validation\.json.* allocate it again with `ripieno allocate RUN B1"):
        start_in_thread(bundle.path, watch=True)


def test_statistics_that_do_not_fit_together_are_refused(watched: Bundle) -> None:
    file = watched.path / FILE
    known = files.read_json(file, ValidationStatistics)
    broken = dataclasses.replace(known.distributions[0], counts=(1,))
    files.write_json(file, dataclasses.replace(known, distributions=(broken,)))
    with pytest.raises(LibraryError, match="is inconsistent: 'confidence' has counts of other bins"):
        start_in_thread(watched.path, watch=True)


def test_deploy_does_not_watch(bundle: Bundle) -> None:
    pytest.importorskip("ray", reason="needs the extra cluster")
    from ripieno.server import deploy

    with pytest.raises(RipienoError, match="watch is for serve"):
        deploy(bundle.path, watch=True)


def test_after_a_reload_requests_are_compared_with_the_new_bundle(watched: Bundle) -> None:
    dark = pictures(BEGIN * WINDOW, low=128, seed=4)
    with start_in_thread(watched.path, watch=True) as server, httpx.Client(base_url=server.url, timeout=20) as http:
        infer(http, dark)
        assert until_compared(http, BEGIN)["drift"]
        write_watched(watched.path, low=128)
        assert server.reload()
        infer(http, dark)
        assert not until_compared(http, BEGIN)["drift"]
        (watched.path / FILE).unlink()
        assert not server.reload()
        assert infer(http, dark[:1]).status_code == 200, "the bundle before goes on"


def request(samples: int, seed: int = 0) -> WatchedRequest:
    predictions = np.full((samples, len(CLASSES)), 1 / len(CLASSES), np.float32)
    return WatchedRequest("r", pictures(samples, seed=seed), predictions, np.zeros(samples, np.float32), False)


def test_a_full_queue_drops_requests_and_counts_their_samples(watched: Bundle) -> None:
    watcher, gate = DriftWatcher(watched, "ensemble"), threading.Event()
    watcher.followers.append(lambda _: gate.wait(20))
    try:
        watcher.submit(request(1))  # the thread takes it and waits
        while watcher._queue:
            time.sleep(0.001)
        began = time.perf_counter()
        assert watcher.wants_disagreement
        assert not watcher.submit(request(2)._replace(disagreement=None)), "it was asked while the queue was full"
        assert watcher.submit(request(QUEUE_SAMPLES + 1)), "a large request may wait alone"
        assert not watcher.wants_disagreement
        assert not watcher.submit(request(7))
        assert time.perf_counter() - began < 1
        assert watcher.dropped == 9
    finally:
        gate.set()
        watcher.close()
    assert not watcher.submit(request(1)), "a closed watcher takes none"


def test_a_request_that_cannot_be_measured_stops_nothing(watched: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    watcher = DriftWatcher(watched, "ensemble")
    watcher.submit(request(WINDOW)._replace(inputs=np.zeros((WINDOW, 2), np.uint8)))
    watcher.submit(request(WINDOW))
    watcher.flush()
    watcher.close()
    assert watcher.windows == 1
    assert "it goes on with the next one" in caplog.text


def test_windows_are_cut_from_requests_of_any_size_and_partial_answers_are_left_out(watched: Bundle) -> None:
    watcher = DriftWatcher(watched, "ensemble")
    for size in (30, 250, 1, 99, 40):
        watcher.submit(request(size))
    watcher.submit(request(500)._replace(partial=True))
    watcher.flush()
    watcher.close()
    assert watcher.windows == 4
    assert watcher.samples == 420


def test_what_early_exit_changes_is_not_compared(watched: Bundle) -> None:
    early = dataclasses.replace(watched, cascade=Cascade(MEMBERS, 0.9))
    watcher = DriftWatcher(early, "ensemble")
    assert not watcher.wants_disagreement
    assert {s["subject"] for s in watcher.document()["statistics"]} == {"predictions", "inputs"}
