"""A bundle's ensemble is selected again by recent samples, and served only if it is better beyond chance."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno import backends, files
from ripieno.data import open_dataset, write_dataset
from ripieno.engine import Engine
from ripieno.errors import DataError, LibraryError, RipienoError
from ripieno.library import read_bundle
from ripieno.library.validation_statistics import read_statistics
from ripieno.pipeline import bundle_exchange, recent_predictions, reselection
from ripieno.tasks.drift import compare, measure
from ripieno.tasks.registry import kind_of
from ripieno.types import Dataset, Device
from tests.command_line import ripieno as run_command
from tests.onnx_networks import write_network

NAMES = tuple(f"0000{i}-e001" for i in range(5))
CPU = Device("cpu:0", "cpu", 1 << 30)


def images(count: int, seed: int) -> np.ndarray:
    dice = np.random.default_rng(seed)
    return np.clip(dice.integers(0, 256, (count, 1, 1, 3)) + dice.normal(0, 30, (count, 8, 8, 3)), 0, 255).astype("u1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five networks whose labels are the answers of the first two, and recent labels those of the last two."""
    folder = tmp_path_factory.mktemp("reselection")
    members = [
        dataclasses.replace(write_network(folder / f"{name}.onnx", name=name, seed=i), created=float(i + 1))
        for i, name in enumerate(NAMES)
    ]

    def answers(inputs: np.ndarray) -> list[np.ndarray]:
        return [backends.load("onnx", folder / f"{m.id}.onnx", m, CPU, 1).infer(inputs) for m in members]

    inputs = images(400, 0)
    predicted = answers(inputs)
    labels = np.mean(predicted[:2], axis=0).argmax(axis=1)
    labels[:4] = range(4)
    split = np.repeat(np.arange(3, dtype=np.uint8), (100, 200, 100))
    library = ripieno.Library(folder / "run")
    data = Dataset("colours", inputs, labels, split, members[0].task, (0.5,) * 3, (0.5,) * 3)
    rows = write_dataset(data, library.dataset_path).rows("valid")
    for member, own in zip(members, predicted, strict=True):
        losses = {"valid_cross_entropy": 1.0}
        library.add(
            dataclasses.replace(member, losses=losses),
            own[rows],
            labels[rows],
            (folder / f"{member.id}.onnx").read_bytes(),
        )
    budget = {"parameters": 2.5 * members[0].parameters}
    (ensemble,) = ripieno.select(library, budget, prune=1.0, cv=0, test=False, device="cpu")
    ripieno.allocate(library, ensemble, devices="cpu", max_benches=0, bundle=folder / "bundle-1")
    names = np.array(members[0].task.names)
    recent = images(200, 1)
    np.savez(folder / "drifted.npz", inputs=recent, targets=names[np.mean(answers(recent)[3:], axis=0).argmax(axis=1)])
    np.savez(folder / "same.npz", inputs=recent, targets=names[np.mean(answers(recent)[:2], axis=0).argmax(axis=1)])
    return folder


def read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of the run and of its bundle, which is served by a link."""
    for name in ("run", "bundle-1"):
        shutil.copytree(made / name, tmp_path / name)
    for name in ("drifted.npz", "same.npz"):
        shutil.copy(made / name, tmp_path)
    (tmp_path / "bundle").symlink_to("bundle-1")
    return tmp_path


def test_members_that_are_right_now_are_served(place: Path) -> None:
    before = (place / "bundle-1" / "bundle.json").read_bytes()
    found = ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz")
    assert set(found.deployed.members) <= set(NAMES[:2])
    assert set(found.ensemble.members) & set(NAMES[3:])
    assert found.is_better
    assert found.switched
    assert (found.selection_samples, found.judging_samples, found.candidates) == (100, 100, 5)
    assert os.readlink(place / "bundle") == "bundle-2"
    assert found.path == place / "bundle-2"
    assert (place / "bundle-1" / "bundle.json").read_bytes() == before, "the old bundle stays as it is"
    new = read_bundle(place / "bundle")
    assert new.ensemble.budget == found.deployed.budget
    assert all(new.ensemble.cost[kind] <= bound for kind, bound in new.ensemble.budget.items())
    assert new.allocation.devices == read_bundle(place / "bundle-1").allocation.devices
    assert new.prior == read_bundle(place / "bundle-1").prior, "the shares of training stay known"
    shutil.rmtree(place / "run")  # the new bundle needs nothing else
    measured = ripieno.evaluate(place / "bundle", place / "drifted.npz")
    assert measured.scores["accuracy"].value > 0.9
    assert not [path for path in place.iterdir() if path.name.startswith(".")], "no part of a bundle is left"


def test_what_is_judged_is_what_is_served(place: Path) -> None:
    found = ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz")
    data = read_npz(place / "drifted.npz")
    names = read_bundle(place / "bundle").task.names
    labels = np.array([names.index(name) for name in data["targets"]])
    rows = reselection.read_recent(
        place / "drifted.npz", read_bundle(place / "bundle"), (), 0, [], {"split": "all"}
    ).judging
    losses = []
    for folder in ("bundle-1", "bundle-2"):
        probabilities = ripieno.predict(place / folder, data["inputs"][rows])
        losses.append(-np.log(probabilities[np.arange(len(rows)), labels[rows]]))
    assert found.deployed_loss == pytest.approx(losses[0].mean(), rel=1e-3)
    assert found.new_loss == pytest.approx(losses[1].mean(), rel=1e-3)
    difference = losses[0] - losses[1]
    assert found.standard_error == pytest.approx(difference.std(ddof=1) / len(rows) ** 0.5, rel=1e-3)


def test_bundles_keep_the_distributions_of_the_samples_that_chose_them(place: Path) -> None:
    """What is kept is what the engine answers."""
    first = read_bundle(place / "bundle-1")
    known = read_statistics(first)
    data = open_dataset(place / "run" / "dataset")
    inputs = data.inputs[data.rows("valid")]
    with Engine(first) as engine:
        answer = engine.submit(inputs, disagreement=True).result()
    kind = kind_of(first.task)
    disagreement = answer.disagreement if len(first.ensemble.members) > 1 else None
    served = measure(kind, first.task, first.input, inputs, answer.predictions, disagreement)
    assert known.samples == len(inputs) == 200
    assert [d.name for d in known.distributions] == [m.name for m in served]
    for distribution, own in zip(known.distributions, served, strict=True):
        assert compare(distribution, distribution.count(own.values)).distance <= 1 / len(inputs), own.name
    found = ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz")
    assert found.path is not None
    recent = read_statistics(read_bundle(found.path))
    assert recent.samples == found.selection_samples
    assert {d.subject for d in recent.distributions} >= {"confidence", "predictions", "inputs"}


def test_without_a_drift_the_link_stays(place: Path) -> None:
    found = ripieno.reselect(place / "run", place / "bundle", place / "same.npz")
    assert not found.is_better
    assert not found.switched
    assert os.readlink(place / "bundle") == "bundle-1"
    if found.differs:
        assert found.switch == (f"ln -sfn bundle-2 {place / 'bundle'}",)


def test_a_dry_run_writes_no_bundle(place: Path) -> None:
    found = ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz", dry_run=True)
    assert found.is_better
    assert found.path is None
    assert sorted(path.name for path in place.glob("bundle*")) == ["bundle", "bundle-1"]


def test_predictions_are_kept_beside_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz", dry_run=True)
    assert len(list((place / "run" / "recent").glob("*/*.npy"))) == 5
    monkeypatch.setattr(recent_predictions, "open_member", None)  # nothing is predicted again
    assert ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz", dry_run=True) == first
    os.utime(place / "run" / "library" / NAMES[0] / "model.onnx")
    with pytest.raises(TypeError):  # but a member with a newer file is
        ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz", dry_run=True)


def test_members_of_two_runs_with_one_id_are_told_apart(place: Path) -> None:
    shutil.copytree(place / "run", place / "other")
    shutil.rmtree(place / "run" / "library" / NAMES[3])
    shutil.rmtree(place / "run" / "library" / NAMES[4])
    other = ripieno.Library(place / "other")
    for old, new in ((NAMES[3], NAMES[0]), (NAMES[4], NAMES[1])):  # the right networks under the ids of the deployed
        member = dataclasses.replace(other.member(old), id=new)
        shutil.rmtree(place / "other" / "library" / new)
        shutil.move(place / "other" / "library" / old, place / "other" / "library" / new)
        files.write_json(place / "other" / "library" / new / "member.json", member)
    found = ripieno.reselect([place / "run", place / "other"], place / "bundle", place / "drifted.npz")
    assert found.switched
    assert set(found.ensemble.members) & {f"other-{NAMES[0]}", f"other-{NAMES[1]}"}
    assert found.candidates == 5, "the third network is in both runs, and counts twice only there"
    assert ripieno.evaluate(place / "bundle", place / "drifted.npz").scores["accuracy"].value > 0.9


def test_a_folder_is_not_exchanged_but_the_commands_are_told(place: Path) -> None:
    (place / "bundle").unlink()
    found = ripieno.reselect(place / "run", place / "bundle-1", place / "drifted.npz")
    assert found.is_better
    assert not found.switched
    for line in found.switch:
        assert os.system(line) == 0
    assert os.readlink(place / "bundle-1") == "bundle-2"
    assert read_bundle(place / "bundle-1").ensemble == found.ensemble
    for line in found.back:
        assert os.system(line) == 0
    assert read_bundle(place / "bundle-1").ensemble == found.deployed


def test_the_commands_go_back(place: Path) -> None:
    found = ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz")
    for line in found.back:
        assert os.system(line) == 0
    assert read_bundle(place / "bundle").ensemble == found.deployed


def test_deployed_members_are_weighed_again(place: Path) -> None:
    shutil.rmtree(place / "run")
    found = ripieno.reweight(place / "bundle", place / "drifted.npz")
    assert set(found.ensemble.members) <= set(found.deployed.members)
    assert found.candidates == len(found.deployed.members)
    assert (found.ensemble.budget, found.ensemble.cost) == (found.deployed.budget, found.deployed.cost)
    assert found.path is not None
    new = read_bundle(found.path)
    assert {p.member for p in new.allocation.placements} == set(new.ensemble.members)
    assert ripieno.predict(found.path, read_npz(place / "drifted.npz")["inputs"][:3]).shape == (3, 4)


def test_samples_that_a_run_was_trained_on_are_left_out(place: Path) -> None:
    data = read_npz(place / "drifted.npz")
    trained = np.load(place / "run" / "dataset" / "inputs.npy")[:30]
    inputs = np.concatenate([data["inputs"][:60], trained])
    np.savez(place / "mixed.npz", inputs=inputs, targets=data["targets"][np.arange(90) % 60])
    notes: list[str] = []
    found = ripieno.reselect(place / "run", place / "bundle", place / "mixed.npz", dry_run=True, notes=notes)
    assert found.selection_samples + found.judging_samples == 60
    assert any("30 recent samples are left out" in note for note in notes)


def test_a_server_that_does_not_reload_leaves_the_link(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def request(self: bundle_exchange.ServedModel, method: str, path: str) -> None:
        calls.append((method, path, os.readlink(place / "bundle")))
        if method == "POST":
            raise RipienoError("http://here returned 500: Reload failed.")

    monkeypatch.setattr(bundle_exchange.ServedModel, "_request", request)
    with pytest.raises(RipienoError, match=r"Reload failed\. .*bundle is bundle-1 as before; the new bundle is .*-2"):
        ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz", server="http://here")
    assert calls == [
        ("GET", "/v2/models/ensemble", "bundle-1"),
        ("POST", "/v2/repository/models/ensemble/load", "bundle-2"),
    ]
    assert os.readlink(place / "bundle") == "bundle-1"


def test_a_crash_while_writing_leaves_what_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reselection, "write_card", crash)
    with pytest.raises(KeyboardInterrupt):
        ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz")
    assert sorted(path.name for path in place.glob("*bundle*")) == ["bundle", "bundle-1"]
    assert os.readlink(place / "bundle") == "bundle-1"


def test_bad_input_is_one_line(place: Path) -> None:
    data = read_npz(place / "drifted.npz")
    good = {"inputs": data["inputs"], "targets": data["targets"]}
    cases: list[tuple[dict[str, np.ndarray], str]] = [
        ({name: values[:49] for name, values in good.items()}, "there are 49 recent samples .* at least 50"),
        ({**good, "inputs": data["inputs"][:, :4]}, "shape"),
        ({**good, "targets": np.array(["whale", "b"])[np.arange(200) % 2]}, "whale|class"),
    ]
    for number, (arrays, message) in enumerate(cases):
        path = place / f"bad{number}.npz"
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=message) as raised:
            ripieno.reselect(place / "run", place / "bundle", path)
        assert "\n" not in str(raised.value)
    document = json.loads((place / "bundle-1" / "bundle.json").read_bytes())
    document["ensemble"]["budget"] = {}
    (place / "bundle-1" / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(LibraryError, match="records no budget"):
        ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz")
    with pytest.raises(LibraryError, match="is not a run"):
        ripieno.reselect(place / "absent", place / "bundle", place / "drifted.npz")
    with pytest.raises(LibraryError, match="given twice"):
        ripieno.reselect([place / "run", place / "run"], place / "bundle", place / "drifted.npz")
    with pytest.raises(RipienoError, match="No response from http"):
        ripieno.reweight(place / "bundle", place / "drifted.npz", server="http://127.0.0.1:9")
    assert sorted(path.name for path in place.glob("*bundle*")) == ["bundle", "bundle-1"]


def test_a_run_of_predictions_only_is_refused(place: Path) -> None:
    library = ripieno.Library(place / "run")
    for name in NAMES:
        library.update(dataclasses.replace(library.member(name), format="predictions"))
    with pytest.raises(LibraryError, match="holds only predictions"):
        ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz")


def test_the_command_tells_what_it_did(place: Path) -> None:
    words = "run", "bundle", "--recent", "drifted.npz"
    dry = run_command("reselect", *words, "--dry-run", cwd=place)
    assert dry.returncode == 0, dry.stderr
    assert "without --dry-run a new bundle would be written, and served" in dry.stdout
    done = run_command("reselect", *words, "--json", cwd=place)
    result = json.loads(done.stdout)
    assert (result["switched"], result["is_better"], result["wrote"]) == (True, True, ["bundle-2"])
    assert result["back"] == ["ln -sfn bundle-1 bundle"]
    again = run_command("reweight", "bundle", "--recent", "drifted.npz", "--dry-run", cwd=place)
    assert again.returncode == 0, again.stderr
    alone = run_command("reselect", "bundle", "--recent", "drifted.npz", cwd=place)
    assert "reselect needs a run and a bundle" in alone.stderr


def test_an_ensemble_that_is_wrong_more_often_is_not_better(place: Path) -> None:
    found = ripieno.reselect(place / "run", place / "bundle", place / "drifted.npz", dry_run=True)
    assert found.is_better
    assert found.new_error < found.deployed_error
    assert not dataclasses.replace(found, new_error=found.deployed_error + 0.01).is_better
    assert not dataclasses.replace(found, standard_error=found.gain / 1.6).is_better
    assert not dataclasses.replace(found, differs=False).is_better
