from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ripieno import backends
from ripieno.backends import export
from ripieno.errors import EngineError, ModelError
from ripieno.types import Input, Task
from tests.backends.made import CPU, TINY, Made, make

OWN = """
import torch
from torch import nn
class Branching(nn.Linear):
    def forward(self, images):
        # a tracer keeps the one branch it saw
        if len(images) == 2:
            return super().forward(images.flatten(1))
        return super().forward(-images.flatten(1))
def branching(configuration, input, classes):
    return Branching(64, classes)
class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 5)
    def forward(self, images):
        return self.layer(images.reshape(images.shape[0], -1))
def plain(configuration, input, classes):
    return Plain()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_exported.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("convolution", "activation"), list(itertools.product(["v1", "v2", "next"], ["tanh", "relu", "elu"]))
)
def test_every_kind_of_network_exports_within_tolerance(convolution: str, activation: str, tmp_path: Path) -> None:
    configuration = {**TINY, "convolution": convolution, "activation": activation}
    made = make(tmp_path, configuration, Input((8, 8, 1)), export=False)
    assert export.export_onnx(made.member, made.path("torch"), made.path("onnx")) < 1e-5


def test_large_images_with_their_pool_export_too(tmp_path: Path) -> None:
    make(tmp_path, TINY, Input((70, 66, 3)))


def test_the_graph_takes_images_and_gives_probabilities_of_any_batch(digit: Made) -> None:
    graph = onnx.load(digit.path("onnx")).graph
    (images,), (probabilities,) = graph.input, graph.output
    assert (images.name, probabilities.name) == ("images", "probabilities")
    kind = images.type.tensor_type
    assert kind.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in kind.shape.dim] == ["batch", 8, 8, 1]


@pytest.mark.parametrize(("kind", "output"), [("multilabel", "probabilities"), ("regression", "values")])
@pytest.mark.parametrize(("backend", "most"), [("onnx", 1e-4), ("openvino", 1e-3), ("onnx:int8", 0.2)])
def test_every_backend_and_precision_predicts_the_task(
    tmp_path: Path, kind: str, output: str, backend: str, most: float
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs pip install 'ripieno[openvino]'")
    made = make(tmp_path, TINY, Input((8, 8, 1)), task=Task(kind, (3,), ("a", "b", "c")))
    assert [o.name for o in onnx.load(made.path("onnx")).graph.output] == [output]
    reference = backends.load("torch", made.path("torch"), made.member, CPU, 1).infer(made.images)
    assert reference.shape == (33, 3)
    if kind == "multilabel":
        assert (reference >= 0).all()
        assert (reference <= 1).all()
        assert np.abs(reference.sum(axis=1) - 1).max() > 0.1, "no softmax"
    else:
        assert abs(reference.mean() - 4000) < 500
    scale = 1.0 if kind == "multilabel" else reference.std()
    loaded = backends.load(backend, made.path(backend), made.member, CPU, 1)
    predictions = loaded.infer(made.images)
    assert np.abs(predictions - reference).max() < most * scale
    assert loaded.infer(made.images[:0]).shape == (0, 3)
    loaded.close()
    if kind == "regression":  # 256 steps over three targets and 33 images would give equal values
        assert len(np.unique(predictions)) == predictions.size


def test_exporting_is_silent(digit: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export.export_onnx(digit.member, digit.path("torch"), tmp_path / "a.onnx")
    assert capfd.readouterr() == ("", "")


def test_both_exporters_agree(digit: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*arguments: object) -> bytes:
        raise RuntimeError("no tracing today")

    monkeypatch.setattr(export, "_by_trace", fails)
    export.export_onnx(digit.member, digit.path("torch"), tmp_path / "model.onnx")
    answers = [
        backends.load("onnx", path, digit.member, CPU, 1).infer(digit.images)
        for path in (digit.path("onnx"), tmp_path / "model.onnx")
    ]
    assert np.abs(answers[0] - answers[1]).max() < 1e-5


def test_the_other_exporter_is_silent_too(
    digit: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "_by_trace", lambda *arguments: b"no graph")
    export.export_onnx(digit.member, digit.path("torch"), tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_answers_differently_is_not_written(own: None, tmp_path: Path) -> None:
    made = make(tmp_path, {}, Input((8, 8, 1)), "own_exported:branching", export=False)
    with pytest.raises(EngineError, match=r"differ by .*use the torch backend"):
        export.export_onnx(made.member, made.path("torch"), made.path("onnx"), ["own_exported:branching"])
    assert not made.path("onnx").exists()


def test_a_users_family_exports_when_the_user_names_it(own: None, tmp_path: Path) -> None:
    made = make(tmp_path, {}, Input((8, 8, 1)), "own_exported:plain")
    assert made.path("onnx").exists()
    with pytest.raises(ModelError, match="--family own_exported:plain"):
        export.export_onnx(made.member, made.path("torch"), tmp_path / "again.onnx")


def test_exporting_twice_gives_the_same_bytes(digit: Made, tmp_path: Path) -> None:
    export.export_onnx(digit.member, digit.path("torch"), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == digit.path("onnx").read_bytes()


def test_weights_that_are_no_numbers_are_not_exported(digit: Made, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(digit.path("torch"))
    tensors["body.classifier.weight"] = torch.full_like(tensors["body.classifier.weight"], torch.nan)
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(EngineError, match="cannot be exported"):
        export.export_onnx(digit.member, tmp_path / "weights.safetensors", tmp_path / "model.onnx")
    assert dataclasses.replace(digit.member) == digit.member


def test_series_are_drawn_at_the_scale_of_the_training_series() -> None:
    """Noise of another scale would be nearly constant to the network, and compare rounding errors."""
    moments = np.array([10_000, -5], np.float32), np.array([300, 0.01], np.float32)
    names = ("images", "values")
    graph = export._ExportGraph(torch.nn.Identity(), Input((200, 2), "float32"), names, "identity", False, moments)
    drawn = graph.draw(5).numpy()
    assert (drawn.shape, drawn.dtype) == ((5, 200, 2), np.float32)
    assert drawn.mean(axis=(0, 1)) == pytest.approx(moments[0], rel=0.01)
    assert drawn.std(axis=(0, 1)) == pytest.approx(moments[1], rel=0.1)
