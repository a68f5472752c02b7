"""Backends selected by measurement, with their report, on a real run."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno import backends
from ripieno.backends.backend_id import split
from ripieno.data import open_dataset, write_dataset
from ripieno.errors import EngineError, LibraryError
from ripieno.library import read_backend_report
from ripieno.pipeline.backend_selection import BackendSelector, Tolerances, rejection_reason
from ripieno.tasks.metrics import cross_entropy
from ripieno.types import Dataset, Device, Ensemble, Input, Member, classification
from tests.backends.made import TINY, make

QUICK = Tolerances(rounds=1, turn=0.002, samples=150)
CPU = Device("cpu:0", "cpu-1-core", 1 << 30, (min(os.sched_getaffinity(0)),))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ripieno.Library:
    """Two networks of random weights, and noise labelled by one of them."""
    folder = tmp_path_factory.mktemp("selection")
    made = [make(folder / kind, {**TINY, "convolution": kind}, Input((8, 8, 1))) for kind in ("v1", "next")]
    images = np.random.default_rng(1).integers(0, 256, (400, 8, 8, 1), np.uint8)
    first = backends.load("onnx", made[0].path("onnx"), made[0].member, CPU, 1).infer(images)
    labels = first.argmax(axis=1).astype(np.int64)
    labels[:5] = range(5)  # each class needs a training sample
    split_of = np.repeat(np.arange(3, dtype=np.uint8), (100, 200, 100))
    library = ripieno.Library(folder / "run")
    data = Dataset("noise", images, labels, split_of, classification("abcde"), (0.5,), (0.5,))
    data = write_dataset(data, library.dataset_path)
    rows = data.rows("valid")
    for index, one in enumerate(made):
        member = dataclasses.replace(one.member, id=f"m{index}")
        answers = backends.load("onnx", one.path("onnx"), one.member, CPU, 1).infer(images[rows])
        library.add(member, answers, labels[rows], one.path("torch").read_bytes())
    return library


@pytest.fixture
def pair() -> Ensemble:
    return Ensemble("pair", ("m0", "m1"), (0.5, 0.5), "hand", {}, {}, {})


def openvino() -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("needs pip install 'ripieno[openvino]'")


def selector(run: ripieno.Library, pair: Ensemble, backend: str, precision: str, **terms: float) -> BackendSelector:
    return BackendSelector(run, pair, backend, precision, terms=dataclasses.replace(QUICK, **terms))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds by backend, which replace the measured ones."""
    seconds: dict[str, float] = {}
    monkeypatch.setattr(
        "ripieno.pipeline.backend_selection.time_alternately",
        lambda runners, *_, **__: {n: seconds[n] for n in runners},
    )
    return seconds


def test_the_fastest_with_the_same_predictions_is_chosen(
    run: ripieno.Library, pair: Ensemble, slow: dict[str, float]
) -> None:
    openvino()
    member = pair.members[0]
    slow.update({"onnx": 3.0, "openvino": 2.0})
    assert selector(run, pair, "auto", "fp32").select(member, CPU, 1, 8).backend == "openvino"
    slow["onnx"] = 2.01
    fit = selector(run, pair, "auto", "fp32").select(member, CPU, 1, 8)
    assert fit.backend == "onnx", "a gain of 0.5 % is not enough"
    assert (fit.reference, fit.difference, fit.seconds) == ("onnx", 0.0, 2.01)


def test_a_faster_one_that_loses_too_much_is_rejected_with_the_reason(
    run: ripieno.Library, pair: Ensemble, slow: dict[str, float]
) -> None:
    slow.update({"onnx": 3.0, "onnx:int8": 1.0})
    member = pair.members[0]
    taken = selector(run, pair, "onnx", "int8", loss=9.0).select(member, CPU, 1, 8)
    assert taken.backend == "onnx:int8"
    assert taken.difference > 0
    refused = selector(run, pair, "onnx", "int8", loss=-9.0, least=-9.0).select(member, CPU, 1, 8)
    assert refused.backend == "onnx"
    assert "validation loss" in refused.refused["onnx:int8"]


def test_a_requested_precision_is_chosen_even_if_slower(
    run: ripieno.Library, pair: Ensemble, slow: dict[str, float]
) -> None:
    slow.update({"onnx": 1.0, "onnx:int8": 3.0})
    assert selector(run, pair, "onnx", "int8", loss=9.0).select(pair.members[0], CPU, 1, 8).backend == "onnx:int8"
    assert selector(run, pair, "onnx", "auto", loss=9.0).select(pair.members[0], CPU, 1, 8).backend == "onnx"


def test_a_backend_by_name_with_other_predictions_is_an_error(
    run: ripieno.Library, pair: Ensemble, slow: dict[str, float]
) -> None:
    slow.update({"onnx": 1.0, "torch": 1.0, "torch:bf16": 1.0})
    with pytest.raises(EngineError, match=r"torch: a probability differs by .* use --backend onnx"):
        selector(run, pair, "torch", "bf16", exact=-1.0, near=-1.0).select(pair.members[0], CPU, 1, 8)


def test_networks_are_evaluated_on_other_images_than_they_are_calibrated_on(
    run: ripieno.Library, pair: Ensemble
) -> None:
    made = selector(run, pair, "auto", "auto", samples=10**9)
    valid = open_dataset(run.dataset_path).rows("valid")
    assert len(made._calibration) + len(made._images) == len(valid)
    evaluated = {image.tobytes() for image in made._images}
    assert sum(image.tobytes() in evaluated for image in made._calibration) < len(made._calibration) / 4


@pytest.mark.parametrize(
    ("backend", "difference", "loss", "word"),
    [
        ("onnx", 2e-4, 0.5, "probability"),
        ("openvino", 1e-5, 0.5, ""),
        ("openvino:bf16", 0.05, 0.504, ""),
        ("openvino:bf16", 0.2, 0.5, "probability"),
        ("openvino:bf16", 0.05, 0.506, "loss"),
        ("onnx:int8", 0.9, 0.4, ""),
        ("onnx:int8", float("nan"), float("nan"), "probability"),
        ("onnx:int8", 0.1, float("nan"), "loss"),
    ],
)
def test_what_is_allowed_depends_on_the_precision(backend: str, difference: float, loss: float, word: str) -> None:
    found = rejection_reason(backend, difference, loss, 0.5, Tolerances())
    assert word in found
    assert bool(word) == bool(found)


@pytest.mark.parametrize(
    ("backend", "difference", "loss", "word"),
    [
        ("onnx", 2e-4, 4e6, "a value, relative to the largest, differs"),
        ("onnx:int8", 3.0, 4.01e6, ""),
        ("onnx:int8", 0.01, 4.05e6, "loss"),
        ("openvino:bf16", 0.05, 4.01e6, ""),
    ],
)
def test_values_are_compared_relative_to_their_unit(backend: str, difference: float, loss: float, word: str) -> None:
    for unit in (1.0, 1e-12):  # an absolute allowance would accept any precision in a small unit
        found = rejection_reason(backend, difference, loss * unit, 4e6 * unit, Tolerances(), "identity")
        assert word in found
        assert bool(word) == bool(found)


def test_a_bundle_of_chosen_backends_answers_by_them_in_both_kinds_of_worker(
    run: ripieno.Library, pair: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ripieno.pipeline.backend_selection.Tolerances", lambda: dataclasses.replace(QUICK, loss=9.0))
    path = tmp_path / "bundle"
    kwargs = {"devices": [CPU], "bundle": path, "max_benches": 2, "precision": "int8"}
    bundle = ripieno.allocate(run, pair, backend="onnx", **kwargs)
    assert {of["cpu:0"] for of in bundle.chosen.values()} == {"onnx:int8"}
    assert sorted(p.name for p in (path / "members").rglob("*.onnx")) == ["model-int8.onnx"] * 2
    proof = read_backend_report(path)
    assert proof is not None
    assert {fit.backend for fit in proof.choices} == {"onnx:int8"}
    data = open_dataset(run.dataset_path)
    images = np.asarray(data.inputs[data.rows("test")[:20]])
    alone = np.mean([_answers(path, run.member(m), images) for m in pair.members], axis=0)
    for isolation in ("thread", "process"):
        with ripieno.Engine(path, isolation=isolation) as engine:
            assert np.abs(engine.predict(images) - alone).max() < 1e-6


def _answers(path: Path, member: Member, images: np.ndarray) -> np.ndarray:
    return backends.load("onnx:int8", path / "members" / member.id / "model-int8.onnx", member, CPU, 1).infer(images)


def test_the_proof_restates_the_ensembles_loss(run: ripieno.Library, pair: Ensemble, slow: dict[str, float]) -> None:
    slow.update({"onnx": 3.0, "onnx:int8": 1.0})
    made = selector(run, pair, "onnx", "int8", loss=9.0)
    proof = made.proof([made.select(m, CPU, 1, 8) for m in pair.members])
    answers = [_answers_of(run, m, "onnx:int8", made._images) for m in pair.members]
    assert proof.loss == pytest.approx(cross_entropy(np.mean(answers, axis=0), made._targets), abs=1e-6)
    answers = [_answers_of(run, m, "onnx", made._images) for m in pair.members]
    assert proof.reference_loss == pytest.approx(cross_entropy(np.mean(answers, axis=0), made._targets), abs=1e-6)
    assert proof.loss != proof.reference_loss


def _answers_of(run: ripieno.Library, member: str, backend: str, images: np.ndarray) -> np.ndarray:
    return backends.load(backend, run.model_path(member, backend), run.member(member), CPU, 1).infer(images)


def test_fp32_by_name_measures_nothing_and_proves_nothing(run: ripieno.Library, pair: Ensemble, tmp_path: Path) -> None:
    bundle = ripieno.allocate(run, pair, devices=[CPU], bundle=tmp_path / "b", max_benches=0)
    assert (bundle.backend, bundle.chosen, read_backend_report(tmp_path / "b")) == ("onnx", {}, None)


def test_without_validation_images_nothing_can_be_chosen(run: ripieno.Library, pair: Ensemble, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "dataset")
    with pytest.raises(LibraryError, match="no validation samples"):
        ripieno.allocate(tmp_path / "run", pair, devices="cpu", backend="auto", max_benches=0)


@pytest.mark.parametrize(
    ("backend", "precision", "words"),
    [
        ("abacus", "fp32", "onnx, tensorrt"),
        ("onnx", "fp4", "in 'fp4'"),
        ("auto", "fp4", "unknown precision"),
        ("torch:bf16", "int8", "pass one precision"),
    ],
)
def test_unknown_options_are_rejected_in_one_line(
    run: ripieno.Library, pair: Ensemble, backend: str, precision: str, words: str
) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        ripieno.allocate(run, pair, devices="cpu", backend=backend, precision=precision, max_benches=0)
    assert "\n" not in str(caught.value)


def test_auto_takes_only_what_is_proven(run: ripieno.Library, pair: Ensemble, tmp_path: Path) -> None:
    one = dataclasses.replace(pair, members=("m1",), weights=(1.0,))
    bundle = ripieno.allocate(
        run, one, devices=[CPU], bundle=tmp_path / "b", backend="auto", precision="auto", max_benches=0
    )
    proof = read_backend_report(tmp_path / "b")
    assert proof is not None
    assert {(f.member, f.backend) for f in proof.choices} == {(m, of["cpu:0"]) for m, of in bundle.chosen.items()}
    for fit in proof.choices:
        assert fit.seconds <= fit.reference_seconds
        assert not rejection_reason(fit.backend, fit.difference, fit.loss, fit.reference_loss, Tolerances())
        assert split(fit.backend)[0] in ("onnx", "openvino")
