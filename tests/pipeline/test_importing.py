"""Imports heed every option: none is ignored silently."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import ripieno
from ripieno.data import open_dataset
from ripieno.errors import DataError, LibraryError
from ripieno.types import Cascade
from tests.library.test_import_series import LENGTH
from tests.library.test_import_series import write_onnx as write_series
from tests.library.test_onnx_columns import write_onnx as write_columns

PREDICTIONS = {"net": np.full((3, 2), 0.5)}
INVALID: list[tuple[Any, dict[str, Any], str]] = [
    ("a.onnx", {"targets": [0, 1, 1]}, "ONNX files do not take targets"),
    ("a.onnx", {"costs": {"a": {"euros": 1.0}}}, "ONNX files do not take costs"),
    ("a.onnx", {"classes": ["x", "y"], "split": "test"}, "ONNX files do not take classes, split: leave that out"),
    ("a.onnx", {"family": "mine:net"}, "ONNX files do not take family"),
    ("a.onnx", {"configuration": {"width": 3}}, "ONNX files do not take configuration"),
    ("a.safetensors", {"tensor": "y", "family": "mine:net"}, "weights do not take tensor"),
    (PREDICTIONS, {"tensor": "y"}, "predictions do not take tensor"),
    ("a.onnx", {"size": 8}, "size 8 needs data"),
    ("a.onnx", {"scale": 0.0}, "scale 0 is not valid: give a number above 0"),
    ("a.onnx", {"scale": float("nan")}, "scale nan"),
    ("a.safetensors", {"layout": "NCHW", "outputs": "logits"}, "weights do not take layout, outputs"),
    ("a.safetensors", {"labels": [0, 1, 1], "family": "mine:net"}, "weights do not take targets"),
    ("a.safetensors", {}, "holds weights without a network: give --family"),
    (PREDICTIONS, {"data": "images", "labels": [0, 1, 1]}, "predictions do not take data"),
    (PREDICTIONS, {"family": "mine:net"}, "predictions do not take family"),
    (PREDICTIONS, {"scale": 2.0, "mean": (0.5,), "std": (0.5,)}, "predictions do not take scale, mean, std"),
    (PREDICTIONS, {"costs": {"net": {"euros": 1.0}}, "split": "test"}, "costs belong to the validation"),
]


@pytest.mark.parametrize(("source", "options", "says"), INVALID, ids=[says for _, _, says in INVALID])
def test_an_option_that_is_not_valid_for_the_source_is_refused(
    tmp_path: Path, source: Any, options: dict[str, Any], says: str
) -> None:
    (tmp_path / "a.onnx").touch()
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(LibraryError, match=says) as caught:
        ripieno.import_(tmp_path / "run", tmp_path / source if isinstance(source, str) else source, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_weights_are_scaled_and_all_files_of_them_become_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "their_scaled.py").write_text(
        "from torch import nn\n"
        "def net(configuration, input, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (30, 4, 3, 1), np.uint8), np.arange(30) % 2
    paths = []
    weights = generator.normal(size=(2, 2, 12)).astype(np.float32)
    for number in range(2):
        paths.append(tmp_path / f"net-{number}.safetensors")
        save_file({"1.weight": weights[number], "1.bias": np.zeros(2, np.float32)}, str(paths[-1]))
    run = ripieno.Library(tmp_path / "run")
    added = ripieno.import_(run, paths, data=(images, labels), family="their_scaled:net", scale=1 / 255)
    assert [m.id for m in added] == run.ids() == ["net-0", "net-1"]
    dataset = open_dataset(run.dataset_path)
    logits = dataset.inputs[dataset.rows("valid")].reshape(-1, 12) / 255 @ weights[1].T
    powers = np.exp(logits)
    assert run.predictions("net-1") == pytest.approx(powers / powers.sum(axis=1, keepdims=True), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("net.pt", r"net\.pt: .* \.safetensors: .* safetensors\.torch\.save_file"),
        ("net.PTH", "safetensors"),
        ("pytorch_model.bin", "safetensors"),
        ("last.ckpt", "safetensors"),
        ("net.h5", "tf2onnx"),
        ("net.keras", "tf2onnx"),
        ("forest.pkl", "skl2onnx"),
        ("net.xml", r"must end in \.onnx, \.safetensors, \.npy"),
    ],
)
def test_a_file_that_is_not_read_is_refused_with_the_way_to_convert_it(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(LibraryError, match=says):
        ripieno.import_(tmp_path / "run", tmp_path / name, data="images", family="resnet")
    assert not (tmp_path / "run").exists()


def write_linear(path: Path, side: int, outputs: tuple[str, ...] = ("y",)) -> Path:
    """A network of images (side, side, 1) that predicts two classes by brightness, once for each of `outputs`."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["m", "signs"], ["z"]),
        *(helper.make_node("Softmax", ["z"], [name], axis=1) for name in outputs),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("x", kind, ["n", side, side, 1])],
        [helper.make_tensor_value_info(name, kind, ["n", 2]) for name in outputs],
        [onnx.numpy_helper.from_array(np.array([[0.01, -0.01]], np.float32), "signs")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def dark_and_bright(side: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(40) % 2
    images = np.random.default_rng(0).integers(0, 50, (40, side, side, 1), np.uint8)
    return images + (100 * labels[:, None, None, None]).astype(np.uint8), labels


def test_an_import_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    network = write_linear(tmp_path / "net.onnx", 4)
    with pytest.raises(LibraryError, match=r"takes images \(4, 4, 1\)"):
        ripieno.import_(tmp_path / "run", network, data=dark_and_bright(8))
    assert not (tmp_path / "run").exists()
    ripieno.import_(tmp_path / "run", network, data=dark_and_bright(8), size=4)


def test_an_import_that_is_refused_leaves_a_run_as_it_was(tmp_path: Path) -> None:
    labels = dark_and_bright(8)[1]
    ripieno.import_(tmp_path / "run", {"a": np.eye(2, dtype=np.float32)[labels] * 0.8 + 0.1}, labels=labels)

    def content() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}

    before = content()
    with pytest.raises(LibraryError, match="labels differ"):
        ripieno.import_(tmp_path / "run", write_linear(tmp_path / "net.onnx", 8), data=dark_and_bright(8))
    assert content() == before


def test_an_import_that_is_refused_keeps_the_data_set_that_was_there(tmp_path: Path) -> None:
    ripieno.import_(tmp_path / "run", write_linear(tmp_path / "net.onnx", 8), data=dark_and_bright(8))
    with pytest.raises(LibraryError, match="takes images"):
        ripieno.import_(tmp_path / "run", write_linear(tmp_path / "small.onnx", 4), data=dark_and_bright(8))
    assert ripieno.Library(tmp_path / "run").ids() == ["net"]
    assert len(open_dataset(tmp_path / "run" / "dataset").inputs) == 40


def test_the_output_that_is_named_is_the_one_that_is_served(tmp_path: Path) -> None:
    network = write_linear(tmp_path / "net.onnx", 4, ("y", "aux"))
    with pytest.raises(LibraryError, match=r"\(y, aux\).*--tensor"):
        ripieno.import_(tmp_path / "run", network, data=dark_and_bright(4))
    (member,) = ripieno.import_(tmp_path / "run", network, data=dark_and_bright(4), tensor="aux")
    assert member.id == "net"


def answers(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.dirichlet([1, 1], 40).astype(np.float32) for name in "ab"}


def test_ensembles_that_hold_a_replaced_member_are_evaluated_again(tmp_path: Path) -> None:
    labels, costs = np.arange(40) % 2, {name: {"seconds": 1.0} for name in "ab"}
    run = ripieno.Library(tmp_path / "run")
    ripieno.import_(run, answers(0), labels=labels, costs=costs)
    both = ripieno.Ensemble("both", ("a", "b"), (0.5, 0.5), "exact", {"seconds": 2.0}, {"seconds": 2.0}, {})
    run.write_ensemble(both)
    run.write_ensemble(dataclasses.replace(both, name="alone", members=("a",), weights=(1.0,)))
    ripieno.front(run)
    run.write_cascade("both", Cascade(("a", "b"), 0.9))
    notes: list[str] = []
    ripieno.import_(run, {"b": answers(1)["b"]}, labels=labels, replace=True, notes=notes)
    together = (answers(0)["a"] + answers(1)["b"]) / 2
    right = np.mean(together.argmax(axis=1) == labels)
    assert run.ensemble("both").losses["valid_accuracy"] == pytest.approx(right)
    assert run.ensemble("alone").losses == {}
    assert run.front() is None
    assert run.cascade("both") is None
    assert len(notes) == 1
    assert notes[0].startswith("both hold replaced members")


def test_test_predictions_reach_the_ensembles_there_are(tmp_path: Path) -> None:
    labels, costs = np.arange(40) % 2, {name: {"seconds": 1.0} for name in "ab"}
    run = ripieno.Library(tmp_path / "run")
    ripieno.import_(run, answers(0), labels=labels, costs=costs)
    (chosen,) = ripieno.select(run, 2.0, method="exact", prune=1.0)
    front = ripieno.front(run, prune=1.0)
    notes: list[str] = []
    ripieno.import_(run, answers(1), labels=labels[::-1], split="test", notes=notes)
    after, kept = run.ensemble(chosen.name), run.front()
    assert kept is not None
    assert [e.members for e in kept.ensembles] == [e.members for e in front.ensembles]
    for ensemble in (after, *kept.ensembles):
        assert {"valid_accuracy", "test_accuracy"} <= set(ensemble.losses)
    assert notes == []


def without_class(side: int, split: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return `dark_and_bright` in splits; the one named has dark images alone."""
    images, labels = dark_and_bright(side)
    rows = {name: np.arange(10 * i, 10 * i + 10) for i, name in enumerate(("train", "valid", "test"))}
    rows[split] = rows[split][labels[rows[split]] == 0]
    return {name: (images[own], labels[own]) for name, own in rows.items()}


UNTRAINABLE = "the data has no training sample of class '1'; add some or leave it out"


def test_networks_are_imported_with_data_whose_training_split_lacks_a_class(tmp_path: Path) -> None:
    notes: list[str] = []
    data, network = without_class(4, "train"), write_linear(tmp_path / "net.onnx", 4)
    (member,) = ripieno.import_(tmp_path / "run", network, data=data, notes=notes)
    assert member.task.names == ("0", "1")
    taken = "the data are used for validation and test only, since no model can be trained on them"
    assert [note for note in notes if "trained" in note] == [f"{taken}: {UNTRAINABLE}"]
    (again,) = ripieno.import_(tmp_path / "run", network, replace=True)  # with the data set kept
    assert (again.id, again.losses) == (member.id, member.losses)
    (chosen,) = ripieno.select(tmp_path / "run", {"parameters": 1e9})
    assert chosen.members == ("net",)


@pytest.mark.parametrize("data", [None, without_class(4, "train")], ids=["kept", "given"])
def test_a_search_refuses_data_whose_training_split_lacks_a_class(tmp_path: Path, data: Any) -> None:
    ripieno.import_(tmp_path / "run", write_linear(tmp_path / "net.onnx", 4), data=without_class(4, "train"))
    with pytest.raises(DataError, match=r"the data set .*run.dataset has no training sample of class '1'") as caught:
        ripieno.tune(data, run=tmp_path / "run", trials=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="class '1' has no sample for train"):
        ripieno.tune(without_class(4, "train"), run=tmp_path / "other", trials=1)
    assert not (tmp_path / "other").exists()


def test_classes_without_training_images_keep_their_place_in_an_image_folder(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    images, labels = dark_and_bright(4)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        split = ("train", "valid", "test")[i % 3]
        folder = tmp_path / "images" / split / ("b-dark", "c-bright")[label]
        folder.mkdir(parents=True, exist_ok=True)
        if split == "train" and label == 0:
            continue
        pillow.fromarray(image[..., 0]).save(folder / f"{i}.png")
    (tmp_path / "images" / "train" / "a-none").mkdir()
    run, notes = ripieno.Library(tmp_path / "run"), list[str]()
    with pytest.raises(
        LibraryError, match=r"must be numbers \(batch, 3\), one per class"
    ):  # an empty folder is a class
        ripieno.import_(run, write_linear(tmp_path / "net.onnx", 4), data=tmp_path / "images")
    (tmp_path / "images" / "train" / "a-none").rmdir()
    (member,) = ripieno.import_(run, write_linear(tmp_path / "net.onnx", 4), data=tmp_path / "images", notes=notes)
    assert member.task.names == ("b-dark", "c-bright")
    assert any("no training sample of class 'b-dark'" in note for note in notes)


def test_targets_of_other_tasks_without_variety_in_training_are_taken(tmp_path: Path) -> None:
    values = np.r_[np.zeros(8), np.linspace(0, 1, 16)].astype(np.float32)
    rows = {"train": slice(0, 8), "valid": slice(8, 16), "test": slice(16, 24)}
    images = np.zeros((24, 4, 4, 1), np.uint8)
    for task, targets in (("regression", values[:, None]), ("multilabel", np.c_[values > 0.4, values > 0.1] * 1)):
        notes: list[str] = []
        parts = {name: (images[own], targets[own]) for name, own in rows.items()}
        network = write_linear(tmp_path / "net.onnx", 4)
        with contextlib.suppress(LibraryError):  # of the network, which is a classifier
            ripieno.import_(tmp_path / task, network, data=parts, task=task, notes=notes)
        assert any("no model can be trained on them" in note and "in all 8 samples" in note for note in notes)


def test_the_options_of_tables_are_those_of_the_data(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = [f"{age},{age % 7},{age % 5},{2.5 * age}" for age in generator.integers(20, 60, 80)]
    (tmp_path / "people.csv").write_text("\n".join(("age,team,room,pay", *lines)))
    write_columns(tmp_path / "net.onnx", {"age": TensorProto.FLOAT})
    run = ripieno.Library(tmp_path / "run")
    ripieno.import_(
        run, tmp_path / "net.onnx", data=tmp_path / "people.csv", target="pay", drop="room", split_by="team",
        column={"team": "category"},
    )  # fmt: skip
    dataset = open_dataset(run.dataset_path)
    assert (dataset.kind, [column.name for column in dataset.columns]) == ("table", ["age"])
    np.testing.assert_allclose(run.predictions("net"), dataset.inputs[dataset.rows("valid")], rtol=1e-6)


def test_the_options_of_series_are_those_of_the_data(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [
        f"p{patient},{hour},{generator.normal():.3f},{'well' if patient % 2 else 'ill'}"
        for patient in range(40)
        for hour in range(LENGTH)
    ]
    (tmp_path / "pulse.csv").write_text("\n".join(("patient,hour,pulse,state", *rows)))
    write_series(tmp_path / "net.onnx", [LENGTH])
    run = ripieno.Library(tmp_path / "run")
    options = {"series": "patient", "time": "hour", "value": "pulse", "target": "state"}
    ripieno.import_(run, tmp_path / "net.onnx", data=tmp_path / "pulse.csv", **options)
    dataset = open_dataset(run.dataset_path)
    assert (dataset.kind, dataset.input.shape) == ("series", (LENGTH, 1))
    with pytest.raises(LibraryError, match="series patient needs data"):
        ripieno.import_(tmp_path / "other", tmp_path / "net.onnx", series="patient")
