"""ONNX files of several labels and of regressions are imported as their task says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.import_models import import_onnx
from ripieno.library.onnx_adapter import OnnxFormat
from ripieno.tasks.registry import TASKS
from ripieno.types import Dataset, Task

SAMPLES = 60


def data_of(kind: str) -> tuple[Dataset, NDArray[np.float32]]:
    """Return grey images of four pixels, and a matrix that predicts their targets from them."""
    rng = np.random.default_rng(0)
    images = rng.random((SAMPLES, 2, 2, 1), np.float32)
    matrix = rng.normal(size=(4, 2)).astype(np.float32)
    scores = (images.reshape(SAMPLES, 4) - 0.5) @ matrix
    targets: NDArray[Any] = (scores > 0).astype(np.uint8) if kind == "multilabel" else (100 * scores).astype(np.float32)
    split = np.array([0, 1, 2] * (SAMPLES // 3), np.uint8)
    data = Dataset("x", images, targets, split, Task(kind, (2,), ("a", "b")), (0.5,), (0.3,))
    return data, matrix


def write_network(path: Path, matrix: NDArray[np.float32], factor: float, sigmoid: bool) -> None:
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    weights = [
        onnx.numpy_helper.from_array(v, n)
        for v, n in (
            (np.array([-1, 4]), "shape"),
            (np.float32(0.5), "half"),
            ((factor * matrix).astype(np.float32), "matrix"),
        )
    ]
    nodes = [
        helper.make_node("Reshape", ["pixels", "shape"], ["flat"]),
        helper.make_node("Sub", ["flat", "half"], ["centred"]),
        helper.make_node("MatMul", ["centred", "matrix"], ["scores"]),
        helper.make_node("Sigmoid" if sigmoid else "Identity", ["scores"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", single, ["n", 2, 2, 1])],
        [helper.make_tensor_value_info("out", single, ["n", 2])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path))


@pytest.mark.parametrize(
    ("kind", "factor", "sigmoid", "outputs"),
    [
        ("regression", 100.0, False, "probabilities"),
        ("multilabel", 5.0, True, "probabilities"),
        ("multilabel", 5.0, False, "logits"),
    ],
)
def test_a_file_predicts_what_its_task_says(
    tmp_path: Path, kind: str, factor: float, sigmoid: bool, outputs: Any
) -> None:
    data, matrix = data_of(kind)
    write_network(tmp_path / "net.onnx", matrix, factor, sigmoid)
    notes: list[str] = []
    library = Library(tmp_path / "run")
    (member,) = import_onnx(library, [tmp_path / "net.onnx"], data, form=OnnxFormat("NHWC", outputs), notes=notes)
    valid = data.rows("valid")
    scores = factor * (data.inputs[valid].reshape(len(valid), 4) - 0.5) @ matrix
    expected = scores if kind == "regression" else 1 / (1 + np.exp(-scores))
    np.testing.assert_allclose(library.predictions("net"), expected, rtol=1e-4, atol=1e-3)
    assert member.losses == pytest.approx(
        TASKS[kind].losses(library.predictions("net"), data.targets[valid], data.task)
    )
    assert [o.name for o in onnx.load(str(library.onnx_path("net"))).graph.output] == [TASKS[kind].outputs[0]]
    assert notes == []


@pytest.mark.parametrize(
    ("kind", "outputs", "words"),
    [
        ("regression", "logits", "holds values of a regression; leave out --outputs logits"),
        (
            "multilabel",
            "probabilities",
            "holds numbers from .*, expected probabilities in 0..1; if they are logits, pass",
        ),
    ],
)
def test_outputs_of_another_kind_are_refused(tmp_path: Path, kind: str, outputs: Any, words: str) -> None:
    data, matrix = data_of(kind)
    write_network(tmp_path / "net.onnx", matrix, 9.0, False)
    with pytest.raises(LibraryError, match=words):
        import_onnx(Library(tmp_path / "run"), [tmp_path / "net.onnx"], data, form=OnnxFormat("NHWC", outputs))
