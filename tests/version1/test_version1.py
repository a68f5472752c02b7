"""A run and a bundle of the first build: today's package reads them and computes the same numbers. See README.md."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from safetensors import safe_open

import ripieno
from ripieno import pipeline
from ripieno.data import open_dataset, write_dataset
from ripieno.data.fingerprint import fingerprint as data_fingerprint
from ripieno.library import read_bundle
from ripieno.profiles import local_devices
from ripieno.server import Client, start_in_thread
from ripieno.train.checkpoint import fingerprint as trial_fingerprint
from ripieno.types import Cascade, Ensemble, Front, Member, classification
from ripieno.version1 import upgrade
from tests.command_line import ripieno as command

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text())
IMAGES, WHOLE, EARLY_EXIT = (np.load(HERE / f"{name}.npy") for name in ("inputs", "probabilities", "cascade"))
CLOSE = {"rtol": 0, "atol": 1e-5}
"""Tolerance of probabilities: another processor rounds differently."""


def digest() -> str:
    """Return a hash of the names and the bytes of the kept folders."""
    found = hashlib.sha256()
    for path in sorted(p for name in ("run", "promoted", "bundle") for p in (HERE / name).rglob("*")):
        found.update(str(path.relative_to(HERE)).encode() + (path.read_bytes() if path.is_file() else b""))
    return found.hexdigest()


@pytest.fixture(scope="module", autouse=True)
def _unchanged() -> Iterator[None]:
    before = digest()
    yield
    assert digest() == before


@pytest.fixture
def run(tmp_path: Path) -> ripieno.Library:
    """A copy of the run, with the measured costs as those of this machine: selection must not measure again."""
    library = ripieno.Library(shutil.copytree(HERE / "run", tmp_path / "run"))
    here = local_devices("cpu")[0].kind
    profiles = library.profiles(EXPECTED["device"]).values()
    library.write_profiles(here, [dataclasses.replace(p, device=here) for p in profiles])
    return library


def same(found: Any, expected: Any, kind: Any) -> None:
    """Compare with a record of the first build: floats to the last digits, all else exactly."""
    upgraded = {n: upgrade(v) for n, v in expected.items()} if kind == dict[str, Member] else upgrade(expected)
    compare(plain(found), plain(msgspec.convert(upgraded, kind)))


def plain(value: Any) -> Any:
    """Return builtins, with the defaults of fields that the first build did not write."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def compare(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            compare(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            compare(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    else:
        assert found == expected


def test_members_and_what_the_run_keeps_of_them_are_read(run: ripieno.Library) -> None:
    same({name: run.member(name) for name in run.ids()}, EXPECTED["members"], dict[str, Member])
    by_name = {e["name"]: e for e in EXPECTED["ensembles"]}
    same({e.name: e for e in run.ensembles()}, by_name, dict[str, Ensemble])
    same(run.front(), EXPECTED["front"], Front)
    same(run.cascade(EXPECTED["ensembles"][-1]["name"]), EXPECTED["cascade"], Cascade)
    assert [a.ensemble for a in run.allocations()] == [EXPECTED["ensembles"][-1]["name"]]
    assert "00001-e003" in command("show", run.path).stdout


def test_the_data_set_is_mapped_under_its_former_names(run: ripieno.Library) -> None:
    before = sorted(run.dataset_path.iterdir())
    dataset = open_dataset(run.dataset_path)
    found = [Path(str(a.filename)).name for a in (dataset.inputs, dataset.targets) if isinstance(a, np.memmap)]
    assert found == ["images.npy", "labels.npy"]
    assert (dataset.kind, dataset.task) == ("image", classification(("0", "1", "2")))
    assert dataset.task.metric == "accuracy"
    write_dataset(dataset, run.dataset_path)
    assert sorted(run.dataset_path.iterdir()) == before
    other = dataclasses.replace(dataset, inputs=255 - dataset.inputs)
    assert np.array_equal(write_dataset(other, run.dataset_path).inputs, other.inputs)
    assert not (run.dataset_path / "images.npy").exists()


def test_data_and_trials_have_the_same_fingerprints(run: ripieno.Library) -> None:
    dataset = open_dataset(run.dataset_path)
    stored = json.loads((run.dataset_path / "source.json").read_text())["fingerprint"]
    assert data_fingerprint((dataset.inputs, dataset.targets)).digest == stored["digest"]
    for member in run.members():
        with safe_open(run.checkpoint_path(member.trial), framework="np") as stream:
            progress = json.loads(stream.metadata()["ripieno"])
        assert trial_fingerprint(4, member.trial, "resnet", member.configuration, dataset) == progress["trial"]


def test_calibrated_rows_are_read(run: ripieno.Library) -> None:
    path = run.member_path("00001-e003")
    text = (path / "member.json").read_text()
    (path / "member.json").write_text(text.replace('"format"', '"temperature": 1.5, "format"'))
    rows = np.random.default_rng(0).random((3, len(run.targets()))).astype(np.float32)
    np.save(path / "calibrated.npy", rows)
    found = run.calibration("00001-e003")
    assert found is not None
    assert found.temperature == 1.5
    np.testing.assert_array_equal(np.stack(found.rows), rows)


def test_selection_chooses_the_same_members_with_the_same_losses(run: ripieno.Library) -> None:
    *small, top = EXPECTED["ensembles"]
    found = ripieno.select(run, [e["budget"]["seconds"] for e in small], method="smobf", prune=1.0)
    found = [dataclasses.replace(e, name=e.name.removesuffix("-smobf")) for e in found]  # its name was the default's
    found += ripieno.select(run, [top["budget"]], method="top-k", size=3, prune=1.0)
    found = [dataclasses.replace(e, unusual=()) for e in found]  # not known then
    same(found, EXPECTED["ensembles"], list[Ensemble])
    same(ripieno.front(run, method="smobf", prune=1.0), EXPECTED["front"], Front)


def test_the_default_replaces_an_ensemble_of_the_former_one(run: ripieno.Library) -> None:
    former = {e.name for e in run.ensembles()}
    (found,) = ripieno.select(run, EXPECTED["ensembles"][0]["budget"]["seconds"], prune=1.0)
    assert found.name in former
    assert {e.name for e in run.ensembles()} == former
    assert (run.ensemble(found.name).method, run.ensemble(found.name).calibration) == ("smobf-r", "members")
    assert all(run.member(m).temperature is not None for m in found.members)


def test_an_ensemble_is_placed_as_before(run: ripieno.Library, tmp_path: Path) -> None:
    plan, profiles = EXPECTED["plan"], f"{run.path}/profiles/{EXPECTED['device']}.json"
    found = pipeline.plan_offline(
        run, plan["ensemble"], devices="1x cpu 2 cores", profiles=[f"cpu-2-cores={profiles}"], output=tmp_path / "plan"
    )
    same(found.allocation, plan, ripieno.Allocation)


def test_a_bundle_written_from_the_run_predicts_the_same(run: ripieno.Library, tmp_path: Path) -> None:
    bundle = ripieno.allocate(run, EXPECTED["plan"]["ensemble"], devices="cpu", bundle=tmp_path / "new", max_benches=0)
    with ripieno.Engine(bundle) as engine:
        np.testing.assert_allclose(engine.predict(IMAGES), WHOLE, **CLOSE)


def test_the_bundle_is_served_with_the_same_numbers(tmp_path: Path) -> None:
    bundle = shutil.copytree(HERE / "bundle", tmp_path / "bundle")
    same(read_bundle(bundle).cascade, EXPECTED["cascade"], Cascade)
    with start_in_thread(bundle) as server:
        with Client(server.url) as client:
            np.testing.assert_allclose(client.infer(IMAGES), EARLY_EXIT, **CLOSE)
        tensor = {"name": "images", "shape": IMAGES.shape, "datatype": "UINT8", "data": IMAGES.ravel().tolist()}
        request = {"inputs": [tensor], "outputs": [{"name": "probabilities"}], "parameters": {"cascade": False}}
        response = httpx.post(f"{server.url}/v2/models/ensemble/infer", json=request, trust_env=False)
        found = response.raise_for_status().json()["outputs"][0]["data"]
    np.testing.assert_allclose(np.reshape(found, WHOLE.shape), WHOLE, **CLOSE)


def test_the_search_is_resumed_with_the_same_decisions(run: ripieno.Library) -> None:
    done = command("tune", "--run", run.path, "--trials", 6, "--pool", "inline")
    assert done.returncode == 0, done.stderr
    resumed = {name: dict(run.member(name).configuration) for name in run.ids()}
    assert len(resumed) > len(EXPECTED["members"])
    compare(resumed, EXPECTED["resumed"])
    before, after = run.member("00000-e001").curve, run.member("00000-e003").curve
    assert after[:1] == before, "the trial was trained again from its start, not from its checkpoint"
    assert not (run.dataset_path / "inputs.npy").exists()
    assert not list((run.path / "library").glob("targets-*.npy"))


def test_a_run_promoted_for_an_ensemble_is_selected_from_but_not_resumed(tmp_path: Path) -> None:
    path = shutil.copytree(HERE / "promoted", tmp_path / "promoted")
    (found,) = ripieno.select(path, [{"parameters": 4000}], method="smobf", prune=1.0)
    same([dataclasses.replace(found, name=found.name.removesuffix("-smobf"))], EXPECTED["promoted"], list[Ensemble])
    done = command("tune", "--run", path, "--trials", 4, "--pool", "inline")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no longer supported" in done.stderr
