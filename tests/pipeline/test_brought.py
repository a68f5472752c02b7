"""What is imported is imported as it was asked for: no option is passed over in silence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ripieno
from ripieno.data import open_dataset
from ripieno.errors import LibraryError
from ripieno.turns import Cascade

PREDICTIONS = {"net": np.full((3, 2), 0.5)}
IDLE: list[tuple[Any, dict[str, Any], str]] = [
    ("a.onnx", {"labels": [0, 1, 1]}, "ONNX files do not take labels"),
    ("a.onnx", {"costs": {"a": {"euros": 1.0}}}, "ONNX files do not take costs"),
    ("a.onnx", {"classes": ["x", "y"], "split": "test"}, "ONNX files do not take classes, split: leave that out"),
    ("a.onnx", {"family": "mine:net"}, "ONNX files do not take family"),
    ("a.onnx", {"configuration": {"width": 3}}, "ONNX files do not take configuration"),
    ("a.onnx", {"size": 8}, "size 8 is of the images of data"),
    ("a.onnx", {"scale": 0.0}, "scale 0: it must be a number above 0"),
    ("a.onnx", {"scale": float("nan")}, "scale nan"),
    ("a.safetensors", {"layout": "NCHW", "outputs": "logits"}, "weights do not take layout, outputs"),
    ("a.safetensors", {"labels": [0, 1, 1], "family": "mine:net"}, "weights do not take labels"),
    ("a.safetensors", {}, "weights need the network they fit: --family"),
    (PREDICTIONS, {"data": "images", "labels": [0, 1, 1]}, "predictions do not take data"),
    (PREDICTIONS, {"family": "mine:net"}, "predictions do not take family"),
    (PREDICTIONS, {"scale": 2.0, "mean": (0.5,), "std": (0.5,)}, "predictions do not take scale, mean, std"),
    (PREDICTIONS, {"costs": {"net": {"euros": 1.0}}, "split": "test"}, "costs are brought with the validation"),
]


@pytest.mark.parametrize(("source", "options", "says"), IDLE, ids=[says for _, _, says in IDLE])
def test_an_option_that_says_nothing_about_the_source_is_refused(
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
    logits = dataset.images[dataset.rows("valid")].reshape(-1, 12) / 255 @ weights[1].T
    powers = np.exp(logits)
    assert run.probabilities("net-1") == pytest.approx(powers / powers.sum(axis=1, keepdims=True), abs=1e-5)


def answers(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.dirichlet([1, 1], 40).astype(np.float32) for name in "ab"}


def test_ensembles_that_hold_a_replaced_member_are_judged_anew(tmp_path: Path) -> None:
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
    assert notes[0].startswith("both hold members that were replaced")


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
