"""The library folder: written data is read back, and broken files are reported in one line."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.types import (
    Allocation,
    BatchProfile,
    Device,
    Ensemble,
    Input,
    Job,
    Member,
    Placement,
    Profile,
    classification,
)

LABELS = np.array([0, 1, 1])
LOSSES = {"valid_cross_entropy": 0.7}
MEMBER = Member(
    "00001-e003", 1, 3, "resnet", {"width": 8}, Input((8, 8, 3)), classification(("a", "b")), LOSSES, 100, 2.5
)


def answers(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).dirichlet([1, 1], 3).astype(np.float32)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library(tmp_path / "run")
    library.add(MEMBER, answers(), LABELS, b"weights")
    return library


def test_a_member_is_read_back_as_it_was_written(library: Library) -> None:
    assert library.member(MEMBER.id) == MEMBER
    assert library.members() == [MEMBER]
    assert library.weights_path(MEMBER.id).read_bytes() == b"weights"
    assert (library.predictions(MEMBER.id) == answers()).all()
    assert (library.targets() == LABELS).all()


def test_the_true_class_is_kept_beside_the_predictions(library: Library) -> None:
    assert (library.true_class_probabilities([MEMBER.id])[0] == answers()[[0, 1, 2], LABELS]).all()
    assert (library.true_class_mapped([MEMBER.id])[0] == answers()[[0, 1, 2], LABELS]).all()
    assert library.has_truth(MEMBER.id)
    assert not library.has_truth(MEMBER.id, "test")


def test_half_precision_stays_half_on_disk(library: Library) -> None:
    half = answers(1).astype(np.float16)
    library.add(dataclasses.replace(MEMBER, id="half"), half, LABELS)
    assert library.predictions("half").dtype == np.float16
    assert library.true_class_mapped(["half"])[0].dtype == np.float16
    assert library.true_class_probabilities(["half", MEMBER.id]).dtype == np.float32


def test_a_member_without_its_json_does_not_exist(library: Library) -> None:
    (library.member_path(MEMBER.id) / "member.json").unlink()
    assert library.ids() == []
    assert MEMBER.id not in library
    with pytest.raises(LibraryError, match="no member '00001-e003'"):
        library.member(MEMBER.id)


def test_a_jobs_member_is_that_of_its_configuration(library: Library) -> None:
    job = Job(1, {"width": 8}, 1, 3)
    assert library.find_job_member(job) == MEMBER
    assert library.find_job_member(dataclasses.replace(job, configuration={"width": 9})) is None
    assert library.find_job_member(dataclasses.replace(job, stop=9)) is None


def test_adding_a_member_again_replaces_it(library: Library) -> None:
    library.add(dataclasses.replace(MEMBER, seconds=9.0), answers(2), LABELS)
    assert len(library) == 1
    assert library.member(MEMBER.id).seconds == 9.0
    assert (library.predictions(MEMBER.id) == answers(2)).all()


def test_a_replaced_member_keeps_nothing_of_the_network_before(library: Library) -> None:
    library.write_predictions(MEMBER.id, "test", answers(3), LABELS)
    for name in ("model.onnx", "model-fp16.onnx", "model-int8.onnx"):
        (library.member_path(MEMBER.id) / name).write_bytes(b"made of the old weights")
    point = BatchProfile(1, 0.1, 0.0, 10)
    library.write_profiles("cpu-x", [Profile(m, "cpu-x", "onnx", (point,)) for m in (MEMBER.id, "other")])
    library.write_profiles("cpu-y", [Profile(MEMBER.id, "cpu-y", "onnx", (point,))])
    library.add(MEMBER, answers(2), LABELS, b"new weights")
    left = {p.name for p in library.member_path(MEMBER.id).iterdir()}
    assert left == {"member.json", "valid.npy", "truth.npy", "weights.safetensors"}
    assert library.weights_path(MEMBER.id).read_bytes() == b"new weights"
    assert list(library.profiles("cpu-x")) == ["other"]
    assert library.usual_device() == "cpu-x"


def test_a_network_replaced_by_its_predictions_alone_is_gone(library: Library) -> None:
    library.add(dataclasses.replace(MEMBER, format="predictions"), answers(2), LABELS)
    assert not library.weights_path(MEMBER.id).exists()


def test_a_writer_killed_while_it_replaces_a_member_leaves_none(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        library.add(MEMBER, answers(2), LABELS, b"new weights")
    assert MEMBER.id not in library


def test_other_labels_are_refused_and_nothing_is_added(library: Library) -> None:
    with pytest.raises(LibraryError, match="labels differ"):
        library.add(dataclasses.replace(MEMBER, id="other"), answers(), np.array([1, 1, 1]))
    assert library.ids() == [MEMBER.id]


def test_predictions_of_another_shape_are_refused(library: Library) -> None:
    with pytest.raises(LibraryError, match=r"shape \(2, 2\), must be \(3, 2\)"):
        library.write_predictions(MEMBER.id, "test", answers()[:2], LABELS)


def test_a_member_can_be_updated_only_when_it_is_there(library: Library) -> None:
    library.update(dataclasses.replace(MEMBER, costs={"seconds": 2.0}))
    assert library.member(MEMBER.id).costs == {"seconds": 2.0}
    with pytest.raises(LibraryError, match="no member 'ghost'"):
        library.update(dataclasses.replace(MEMBER, id="ghost"))


def test_a_removed_member_is_gone_with_its_profiles(library: Library) -> None:
    library.write_profiles("cpu-x", [Profile(MEMBER.id, "cpu-x", "onnx", (BatchProfile(1, 0.1, 0.0, 10),))])
    library.remove(MEMBER.id)
    assert len(library) == 0
    assert not library.member_path(MEMBER.id).exists()
    assert library.profiles("cpu-x") == {}
    assert library.usual_device() == ""


def test_profiles_of_the_same_member_are_replaced_and_others_kept(library: Library) -> None:
    first, second = (Profile(m, "cpu-x", "onnx", (BatchProfile(1, 0.1, 0.0, 10),)) for m in ("a", "b"))
    library.write_profiles("cpu-x", [first, second])
    library.write_profiles("cpu-x", [dataclasses.replace(first, idle=False)])
    assert library.profiles("cpu-x") == {"a": dataclasses.replace(first, idle=False), "b": second}
    assert library.profile_devices() == ["cpu-x"]
    assert library.profiles("gpu-y") == {}


def test_a_file_of_profiles_from_before_backends_and_loads_were_told_apart_is_read(library: Library) -> None:
    point = '{"batch_size": 1, "seconds": 0.1, "spread": 0.0, "bytes": 10}'
    old = f'{{"version": 1, "items": [{{"member": "a", "device": "cpu-x", "backend": "onnx", "points": [{point}]}}]}}'
    folder = library.path / "profiles"
    folder.mkdir(parents=True)
    (folder / "cpu-x.json").write_text(old)
    assert library.profiles("cpu-x") == {"a": Profile("a", "cpu-x", "onnx", (BatchProfile(1, 0.1, 0.0, 10),))}
    assert library.profiles("cpu-x", "torch") == {}


def test_profiles_by_two_backends_stand_beside_each_other(library: Library) -> None:
    point = BatchProfile(1, 0.1, 0.0, 10)
    library.write_profiles("cpu-x", [Profile(m, "cpu-x", "onnx", (point,)) for m in ("a", "b")])
    library.write_profiles("cpu-x", [Profile("a", "cpu-x", "openvino:bf16", (point,))])
    assert list(library.profiles("cpu-x")) == ["a", "b"]  # by the most frequent backend
    assert library.profiles("cpu-x", "openvino:bf16")["a"].backend == "openvino:bf16"
    assert library.profiles("cpu-x", "torch") == {}


def test_ensembles_are_listed_from_the_cheapest_budget(library: Library) -> None:
    for budget in (80.0, 5.0, 20.0):
        cost = {"seconds": budget}
        library.write_ensemble(Ensemble(f"B{budget:g}", (MEMBER.id,), (1.0,), "smobf", cost, cost, {}))
    both = {"seconds": 20.0, "memory": 4e9}
    library.write_ensemble(Ensemble("B-both", (MEMBER.id,), (1.0,), "smobf", both, both, {}))
    assert [e.name for e in library.ensembles()] == ["B5", "B20", "B-both", "B80"]
    assert library.ensemble("B20").budget == {"seconds": 20.0}
    with pytest.raises(LibraryError, match=r"no ensemble 'B7' .* there are: B5, B20, B-both, B80"):
        library.ensemble("B7")


def test_an_allocation_is_read_back_as_it_was_written(library: Library) -> None:
    device = Device("cpu:0", "cpu-x", 10, (0, 1))
    allocation = Allocation("a", "B5", (device,), (Placement(MEMBER.id, "cpu:0", 16),))
    library.write_allocation(allocation)
    assert library.allocations() == [allocation]


@pytest.mark.parametrize("name", ["", ".", "..", "../out", "a/b", "a\\b", ".hidden", "a\0b"])
def test_no_name_leaves_its_folder(library: Library, name: str) -> None:
    with pytest.raises(LibraryError, match="is not a name"):
        library.member_path(name)
    with pytest.raises(LibraryError, match="is not a name"):
        library.write_ensemble(Ensemble(name, (), (), "smobf", {}, {}, {}))


def test_a_broken_member_names_its_file(library: Library) -> None:
    path = library.member_path(MEMBER.id) / "member.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(LibraryError, match=r"member\.json cannot be read"):
        library.member(MEMBER.id)


def test_a_member_of_a_newer_version_says_upgrade(library: Library) -> None:
    path = library.member_path(MEMBER.id) / "member.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(LibraryError, match=r"version 99.*upgrade"):
        library.member(MEMBER.id)


@pytest.mark.parametrize("bad", ["0", "-2", "1e-300", "NaN", "1e999", '"hot"'])
def test_a_member_whose_temperature_is_no_number_above_0_is_refused(library: Library, bad: str) -> None:
    path = library.member_path(MEMBER.id) / "member.json"
    text = path.read_text()
    assert '"temperature": null' in text
    path.write_text(text.replace('"temperature": null', f'"temperature": {bad}'))
    with pytest.raises(LibraryError, match=r"member\.json cannot be read: .*: restore it") as caught:
        library.member(MEMBER.id)
    assert "\n" not in str(caught.value)


def test_a_member_and_an_ensemble_without_temperatures_have_the_defaults(library: Library) -> None:
    ensemble = Ensemble("small", (MEMBER.id,), (1.0,), "best", {}, {}, {})
    library.write_ensemble(ensemble)
    new = {"temperature", "temperatures", "calibration", "expected_loss", "expected_loss_error"}
    for path in (library.member_path(MEMBER.id) / "member.json", library.path / "ensembles" / "small.json"):
        document = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in document.items() if k not in new}))
    assert library.member(MEMBER.id).temperature is None
    assert library.ensemble("small") == ensemble


def test_an_ensemble_with_another_number_of_temperatures_is_refused(library: Library) -> None:
    library.write_ensemble(Ensemble("small", (MEMBER.id,), (1.0,), "best", {}, {}, {}, temperatures=(1.0, 2.0)))
    with pytest.raises(LibraryError, match="1 members and 2 temperatures"):
        library.ensemble("small")


def test_broken_predictions_name_their_file(library: Library) -> None:
    (library.member_path(MEMBER.id) / "valid.npy").write_bytes(b"no array")
    with pytest.raises(LibraryError, match=r"valid\.npy is not a readable"):
        library.predictions(MEMBER.id)
    with pytest.raises(LibraryError, match=r"test\.npy does not exist"):
        library.predictions(MEMBER.id, "test")


def test_many_writers_add_members_at_once(tmp_path: Path) -> None:
    library = Library(tmp_path)
    members = [dataclasses.replace(MEMBER, id=f"m{i}") for i in range(16)]
    threads = [threading.Thread(target=library.add, args=(m, answers(), LABELS)) for m in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert library.ids() == sorted(m.id for m in members)
    assert not list(tmp_path.rglob("*.tmp"))


def test_costs_come_from_the_device_that_most_members_were_measured_on(tmp_path: Path) -> None:
    library = Library(tmp_path)
    assert library.usual_device() == ""
    point = BatchProfile(1, 0.1, 0.0, 1)
    library.write_profiles("a-part", [Profile("x", "a-part", "onnx", (point,))])
    library.write_profiles("whole", [Profile(m, "whole", "onnx", (point,)) for m in ("x", "y")])
    assert library.usual_device() == "whole"


@pytest.mark.parametrize("wrong", [np.nan, -0.5, 3.0])
def test_what_is_no_probability_is_not_added(tmp_path: Path, wrong: float) -> None:
    member = Member("x", 0, 1, "resnet", {}, Input((2, 2, 1)), classification(("a", "b")), LOSSES, 1, 0.0)
    values = np.array([[0.5, 0.5], [wrong, 0.5]])
    with pytest.raises(LibraryError, match="x"):
        Library(tmp_path).add(member, values, np.array([0, 1]))
    assert len(Library(tmp_path)) == 0


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, 2, -1], "contain -1"),
        ([0, 1, 2, 3], "contain 3"),
        ([0, 1, 2, 0.5], "type float64"),
        ([[0], [1], [2], [0]], "shape"),
    ],
)
def test_wrong_labels_leave_the_member_that_is_there(tmp_path: Path, labels: list[Any], said: str) -> None:
    library = Library(tmp_path / "run")
    rows = np.full((4, 3), 1 / 3, np.float32)
    library.add(dataclasses.replace(MEMBER, id="m", task=classification(("a", "b", "c"))), rows, np.array([0, 1, 2, 0]))
    before = {path: path.read_bytes() for path in library.path.rglob("*") if path.is_file()}
    with pytest.raises(LibraryError, match=said):
        library.add(dataclasses.replace(MEMBER, id="m", task=classification(("a", "b", "c"))), rows, np.array(labels))
    with pytest.raises(LibraryError, match=said):
        library.write_predictions("m", "valid", rows, np.array(labels))
    assert {path: path.read_bytes() for path in library.path.rglob("*") if path.is_file()} == before
    library.add(
        dataclasses.replace(MEMBER, id="m", task=classification(("a", "b", "c"))), rows, np.array([0.0, 1.0, 2.0, 0.0])
    )
    assert library.targets().tolist() == [0, 1, 2, 0]
