"""Arguments are checked before data is read, a network is measured, or a file is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno.errors import MissingExtraError, RipienoError, SearchError
from ripieno.pipeline import export
from ripieno.search import Algorithm, Settings, find_space
from ripieno.search.settings import resolve_settings
from tests.onnx_networks import write_network

NAME = "00000-e001"


def forbidden(what: str) -> Callable[..., Any]:
    return lambda *_, **__: pytest.fail(what)


TUNE: list[tuple[dict[str, Any], str]] = [
    ({"hours": 0}, "hours 0"),
    ({"hours": float("nan")}, "hours nan"),
    ({"hours": 1e300}, "at most"),
    ({"trials": 0}, "trials 0"),
    ({"epochs": 0}, "epochs 0"),
    ({"eta": 1}, "eta 1"),
    ({"keep": 1}, "keep 1"),
    ({"step": 1}, "step 1"),
    ({"eta": 3, "keep": 3}, "give eta alone"),
    ({"seed": -1}, "seed -1"),
    ({"slots": 0}, "slots 0"),
    ({"pool": "cloud"}, "pool 'cloud'"),
    ({"device": "tpu"}, "device 'tpu'"),
    ({"per_device": 0}, "per_device 0"),
    ({"cpus": float("inf")}, "cpus inf"),
    ({"limit": float("inf")}, "limit inf"),
    ({"limit": -1.0}, "limit -1"),
    ({"family": "nowhere_at_all:build"}, "cannot import nowhere_at_all"),
    ({"family": "resnet50"}, "unknown family 'resnet50'"),
    ({"family": "json:nothing"}, "json has no nothing"),
    ({"size": 0}, "size is 0"),
    ({"split": (0.8, 0.2, 0.2)}, "sums to 1.2"),
    ({"split": (72, 8, 40)}, "sums to 120"),
    ({"split": (0.8, 0.2, 0.0)}, "three positive numbers"),
    ({"split": (0.8, 0.2)}, "three positive numbers"),
    ({"metric": "f1"}, "metric is 'f1'"),
    ({"space": "nope"}, "no space 'nope'"),
    ({"algorithm": "nope"}, "no algorithm 'nope'"),
    ({"algorithm": "asha+nope"}, "no sampler 'nope'"),
    ({"algorithm": "nowhere.json"}, "nowhere.json"),
    ({"algorithm": "genetic", "keep": 4}, "scheduler generations has no"),
]


@pytest.mark.parametrize(("more", "message"), TUNE)
def test_bad_arguments_of_tune_are_refused_before_data_is_read(
    tmp_path: Path, more: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ripieno.pipeline.tuning.prepare", forbidden("data was read"))
    with pytest.raises(RipienoError, match=message):
        ripieno.tune(tmp_path / "images", tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()


def test_a_resumed_search_may_repeat_its_algorithm_and_not_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, algorithm = tmp_path / "run", Algorithm(name="mine", step=2, keep=4, sampler="tpe")
    (tmp_path / "mine.json").write_text(json.dumps({"step": 2, "keep": 4, "sampler": "tpe"}))
    resolve_settings(run / "run.json", Settings(find_space("resnet-tiny"), algorithm, trials=4), 1, None)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"keep": 5}, "a search with keep 4, requested is keep 5: pass the same values, omit keep"),
        ({"eta": 2}, "a search with keep 4, requested is keep 2"),
        ({"algorithm": "tpe"}, r"algorithm mine \(brackets all\) and step 2 and keep 4, requested is algorithm tpe"),
        ({"algorithm": tmp_path / "mine.json", "step": 2.5}, "a search with step 2, requested is step 2.5"),
    ]
    for more, message in changes:
        with pytest.raises(SearchError, match=message):
            ripieno.tune(run=run, **more)
    monkeypatch.setattr("ripieno.pipeline.tuning.prepare", forbidden("all agrees"))
    same: list[dict[str, Any]] = [
        {},
        {"algorithm": "mine"},
        {"algorithm": algorithm},
        {"algorithm": tmp_path / "mine.json"},
        {"step": 2, "keep": 4},
    ]
    for more in same:
        with pytest.raises(pytest.fail.Exception, match="all agrees"):
            ripieno.tune(run=run, **more)


@pytest.mark.parametrize(
    ("more", "module"),
    [({"pool": "ray"}, "ray"), ({"algorithm": "smac"}, "smac"), ({"algorithm": "forest"}, "sklearn")],
)
def test_a_package_that_is_not_installed_is_reported_before_data_is_read(
    tmp_path: Path, more: dict[str, Any], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ripieno.pipeline.tuning.prepare", forbidden("data was read"))
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=module):
        ripieno.tune(tmp_path / "images", tmp_path / "run", **more)


@pytest.mark.parametrize(("algorithm", "warned"), [("asha+gp", True), ("asha+forest", False)])
def test_a_scheduler_and_sampler_that_hardly_help_each_other_are_warned_of(
    tmp_path: Path, algorithm: str, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ripieno.pipeline.tuning.prepare", forbidden("the search goes on"))
    with pytest.raises(pytest.fail.Exception, match="the search goes on"):
        ripieno.tune(tmp_path / "images", tmp_path / "run", algorithm=algorithm)
    assert ("sampler gp learns only from trials at their last epoch" in caplog.text) == warned


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arguments")
    member = write_network(folder / "net.onnx", name=NAME)
    labels = np.arange(8) % len(member.classes)
    rows = np.full((8, len(member.classes)), 1 / len(member.classes), np.float32)
    library = ripieno.Library(folder / "run")
    library.add(member, rows, labels, (folder / "net.onnx").read_bytes())
    library.write_ensemble(ripieno.Ensemble("one", (NAME,), (1.0,), "hand", {"seconds": 1.0}, {}, {}))
    ripieno.allocate(library, "one", devices="cpu", max_benches=0, bundle=folder / "bundle")
    return folder


ALLOCATE: list[tuple[dict[str, Any], str]] = [
    ({"pins": ["absent=@8"]}, "pinned member absent is not in the ensemble"),
    ({"pins": [f"{NAME}=cpu:9"]}, "is pinned to unknown device cpu:9"),
    ({"pins": [f"{NAME}=@0"]}, "cannot parse pin"),
    ({"max_benches": -1}, "max_benches -1"),
    ({"rate": 0}, "rate 0"),
    ({"rate": float("inf")}, "rate inf"),
    ({"method": "best"}, "unknown method 'best'"),
    ({"backend": "tflite"}, "unknown backend 'tflite'"),
    ({"precision": "fp8"}, "fp8"),
    ({"devices": "tpu"}, "unknown device 'tpu'"),
    ({"ensemble": "two"}, "no ensemble 'two'"),
]


@pytest.mark.parametrize(("more", "message"), ALLOCATE)
def test_bad_arguments_of_allocate_are_refused_before_a_member_is_measured(
    run: Path, tmp_path: Path, more: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ripieno.pipeline.allocation.profiles_for", forbidden("it was measured"))
    with pytest.raises(RipienoError, match=message):
        ripieno.allocate(run / "run", **{"ensemble": "one", "devices": "cpu", "bundle": tmp_path / "bundle", **more})


def test_a_target_that_cannot_be_written_is_an_error_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("ripieno.pipeline.allocation.profiles_for", forbidden("it was measured"))
    monkeypatch.setattr("ripieno.backends.merge_onnx.merge_onnx", forbidden("it was exported"))
    for inside in (tmp_path / "file", tmp_path / "file" / "bundle"):
        with pytest.raises(RipienoError, match="is a file"):
            ripieno.allocate(run / "run", "one", devices="cpu", bundle=inside)
    with pytest.raises(RipienoError, match="is a file"):
        export(run / "bundle", tmp_path / "file" / "one.onnx")
    with pytest.raises(RipienoError, match="form 'caffe' is unknown"):
        export(run / "bundle", form="caffe")  # type: ignore[arg-type]
