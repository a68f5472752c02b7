"""Series of unequal lengths from a file to a server: a search, predictions, evaluation, requests."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import ripieno
from ripieno.data.series import pad
from ripieno.engine import Engine
from ripieno.errors import DataError, EngineError, RipienoError
from ripieno.library import write_bundle
from ripieno.pipeline.costs import export_members
from ripieno.pipeline.prediction import stream_predictions
from ripieno.pipeline.prediction_files import prediction_writer
from ripieno.pipeline.prediction_tables import TABLES
from ripieno.profiles import local_devices
from ripieno.server import Client, start_in_thread
from ripieno.types import Allocation, Bundle, Ensemble, Placement
from tests.pipeline.test_exporting import read_configs

LENGTH = 24


def waves(count: int, seed: int) -> tuple[list[NDArray[np.float32]], list[str]]:
    """Series of 12 to 24 points and two channels; the classes differ in the frequency of both."""
    draw = np.random.default_rng(seed)
    classes = ["slow" if i % 2 else "fast" for i in range(count)]
    series = []
    for i in range(count):
        steps = np.arange(LENGTH if i == 0 else draw.integers(12, LENGTH + 1))
        phase, speed = draw.uniform(0, 6), 0.5 if i % 2 else 1.5
        both = np.stack([np.sin(speed * steps + phase), np.cos(speed * steps)], 1) + draw.normal(
            0, 0.1, (len(steps), 2)
        )
        series.append(both.astype(np.float32))
    return series, classes


def write(path: Path, count: int, seed: int) -> Path:
    lines = []
    for one, name in zip(*waves(count, seed), strict=True):
        lines.append(":".join((*(",".join(f"{x:.5f}" for x in channel) for channel in one.T), name)))
    path.write_text("\n".join(("@classLabel true fast slow", "@data", *lines)))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Waves")
    write(folder / "Waves_TRAIN.ts", 60, 0)
    write(folder / "Waves_TEST.ts", 20, 1)
    return folder


@pytest.fixture(scope="module")
def bundle(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    library = ripieno.tune(
        files / "Waves_TRAIN.ts",
        tmp_path_factory.mktemp("run"),
        trials=1,
        epochs=1,
        family="fcn",
        free="off",
        folds=0,
        slots=1,
        pool="inline",
        device="cpu",
    )
    members = library.members()
    names = tuple(member.id for member in members)
    ensemble = Ensemble("all", names, (1 / len(names),) * len(names), "smobf", {}, {}, {})
    export_members(library, members)
    cpu = local_devices("cpu")[0]
    allocation = Allocation("all", "all", (cpu,), tuple(Placement(name, cpu.name, 8) for name in names))
    return write_bundle(library, ensemble, allocation, "onnx", library.path / "bundle")


def test_shorter_series_are_predicted_as_their_padded_ones(bundle: Bundle, files: Path) -> None:
    series, _ = waves(20, 1)
    notes: list[str] = []
    found = ripieno.predict(bundle, series, notes=notes)
    np.testing.assert_allclose(found, ripieno.predict(bundle, files / "Waves_TEST.ts"), atol=1e-4)
    np.testing.assert_allclose(found, ripieno.predict(bundle, pad(series, LENGTH)), atol=1e-6)
    np.testing.assert_allclose(found[:1], ripieno.predict(bundle, series[0]), atol=1e-6)
    shortest = min(series, key=len)
    row = next(i for i, one in enumerate(series) if one is shortest)
    np.testing.assert_allclose(found[row : row + 1], ripieno.predict(bundle, shortest), atol=1e-6)
    assert notes == []


def test_gaps_are_interpolated_with_a_note_in_files_and_refused_in_requests(bundle: Bundle) -> None:
    series = pad(waves(2, 1)[0], LENGTH)
    whole, notes = series.copy(), list[str]()
    whole[0, 3] = (whole[0, 2] + whole[0, 4]) / 2
    series[0, 3] = np.nan
    found = ripieno.predict(bundle, series, notes=notes)
    np.testing.assert_allclose(found, ripieno.predict(bundle, whole), atol=1e-6)
    assert notes == ["2 missing values are interpolated in 1 series; the first is sample 0 of series"]
    with Engine(bundle) as engine, pytest.raises(EngineError, match="NaN before the end"):
        engine.predict(series)


def test_the_test_file_is_evaluated(bundle: Bundle, files: Path) -> None:
    found = ripieno.evaluate(bundle, files)
    assert (found.split, found.samples) == ("test", 20)
    assert ripieno.evaluate(bundle, files / "Waves_TEST.ts").scores == found.scores


def test_predictions_of_a_file_are_written_by_their_place(bundle: Bundle, files: Path, tmp_path: Path) -> None:
    with prediction_writer(tmp_path / "predictions.csv", bundle) as append:
        for batch in stream_predictions(bundle, files / "Waves_TEST.ts"):
            append(batch)
            assert TABLES["classification"].records(batch, bundle)[0]["sample"] == "Waves_TEST.ts[0]"
    with open(tmp_path / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [f"Waves_TEST.ts[{i}]" for i in range(20)]
    found = ripieno.predict(bundle, files / "Waves_TEST.ts")
    np.testing.assert_allclose([float(row["slow"]) for row in rows], found[:, 1], atol=1e-5)


def test_exports_take_padded_series(bundle: Bundle, tmp_path: Path) -> None:
    padded = pad(waves(20, 1)[0], LENGTH)
    expected = ripieno.predict(bundle, padded)

    def run(path: Path, given: dict[str, NDArray[Any]]) -> NDArray[Any]:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["probabilities"], given)[0])

    path = ripieno.export(bundle, tmp_path / "one.onnx")
    np.testing.assert_allclose(run(path, {"images": padded}), expected, atol=1e-5)
    card = path.with_suffix(".md").read_text()
    assert f"It takes `images` (batch, {LENGTH}, 2) of float32" in card
    assert "Shorter series are padded with NaN at the end" in card
    single = ripieno.export(bundle, tmp_path / "single", form="triton-single")
    np.testing.assert_allclose(run(single / "ensemble" / "1" / "model.onnx", {"images": padded}), expected, atol=1e-5)
    models = ripieno.export(bundle, tmp_path / "models", form="triton")
    given = {
        f"member{number}": run(models / f"ensemble-{member}" / "1" / "model.onnx", {"images": padded})
        for number, member in enumerate(bundle.ensemble.members)
    }
    np.testing.assert_allclose(run(models / "ensemble-combine" / "1" / "model.onnx", given), expected, atol=1e-5)
    for folder in (single, models):
        (tensor,) = read_configs(folder)["ensemble"].input
        assert (tensor.name, list(tensor.dims), tensor.data_type) == ("images", [LENGTH, 2], 11)  # TYPE_FP32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, LENGTH + 1, 2)), f"{LENGTH + 1} points .* takes at most {LENGTH}"),
        (np.zeros((2, LENGTH, 3)), "have shape"),
    ],
)
def test_an_unseen_length_is_one_line(bundle: Bundle, values: NDArray[Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        ripieno.predict(bundle, values)
    assert "\n" not in str(caught.value)


def test_a_server_takes_padded_series_and_its_client_pads_them(bundle: Bundle) -> None:
    series, _ = waves(20, 1)
    expected = ripieno.predict(bundle, series)
    with Engine(bundle) as engine, start_in_thread(engine) as running, Client(running.url) as client:
        np.testing.assert_allclose(client.infer(series), expected, atol=1e-5)
        padded = pad(series[:3], LENGTH)
        data = [None if np.isnan(x) else float(x) for x in padded.ravel()]
        tensor = {"name": "images", "shape": list(padded.shape), "datatype": "FP32", "data": data}
        response = httpx.post(f"{running.url}/v2/models/ensemble/infer", json={"inputs": [tensor]}, trust_env=False)
        assert response.status_code == 200
        np.testing.assert_allclose(np.reshape(response.json()["outputs"][0]["data"], (3, 2)), expected[:3], atol=1e-5)
        with pytest.raises(RipienoError, match=f"the network takes at most {LENGTH}"):
            client.infer(np.zeros((1, LENGTH + 1, 2), np.float32))
        tensor |= {"shape": [1, LENGTH + 1, 2], "data": [0.0] * (2 * LENGTH + 2)}
        response = httpx.post(f"{running.url}/v2/models/ensemble/infer", json={"inputs": [tensor]}, trust_env=False)
        assert response.status_code == 400
        assert f"must be [samples, {LENGTH}, 2]" in response.json()["error"]
