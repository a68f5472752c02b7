"""Networks of series that others trained: ONNX files of every layout, and modules with weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.import_models import import_onnx, import_torch
from ripieno.library.onnx_adapter import OnnxFormat
from ripieno.types import Dataset, classification

LENGTH, CHANNELS = 6, 2
SCALING: dict[str, Any] = {"scale": 0.5, "mean": (0.25, 0.5), "std": (2.0, 3.0)}


def data(channels: int = CHANNELS, length: int = LENGTH) -> Dataset:
    """Thirty series, of which every third is two points shorter."""
    generator = np.random.default_rng(0)
    series = generator.normal(size=(30, length, channels)).astype(np.float32)
    series[::3, -2:] = np.nan
    labels, split = np.arange(30) % 2, np.repeat(np.array([0, 1, 2], np.uint8), 10)
    moments = (0.0,) * channels, (1.0,) * channels
    return Dataset("waves", series, labels, split, classification(("a", "b")), *moments, kind="series")


def write_onnx(path: Path, shape: list[Any], order: tuple[int, ...] = (), masks: bool = False) -> NDArray[np.float32]:
    """Write softmax(flat(x) @ w) for inputs of `shape`, whose axes `order` puts the channels last; return w.

    Where it `masks`, NaN counts as 9.
    """
    inner = [n for n in shape if n != 1] if not order else [shape[axis - 1] for axis in order[1:]]
    weights = np.random.default_rng(1).normal(size=(int(np.prod(inner)), 2)).astype(np.float32)
    first = "x"
    nodes = []
    if masks:
        nodes += [helper.make_node("IsNaN", ["x"], ["nan"]), helper.make_node("Where", ["nan", "nine", "x"], ["known"])]
        first = "known"
    if order:
        nodes.append(helper.make_node("Transpose", [first], ["last"], perm=list(order)))
        first = "last"
    nodes += [
        helper.make_node("Flatten", [first], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.float32(9), "nine")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return weights


def softmax(scores: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("shape", "order", "channels"),
    [
        ([LENGTH, CHANNELS], (), CHANNELS),
        ([CHANNELS, LENGTH], (0, 2, 1), CHANNELS),
        ([None, CHANNELS], (), CHANNELS),
        ([LENGTH], (), 1),
    ],
    ids=["channels-last", "channels-first", "any-length", "without-channels"],
)
def test_a_file_of_any_layout_gets_zeros_as_padding(
    tmp_path: Path, shape: list[Any], order: tuple[int, ...], channels: int
) -> None:
    known = [LENGTH if n is None else n for n in shape]
    weights = write_onnx(tmp_path / "theirs.onnx", known, order)
    if None in shape:
        model = onnx.load(str(tmp_path / "theirs.onnx"))
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
        onnx.save(model, str(tmp_path / "theirs.onnx"))
    dataset, notes, library = data(channels), list[str](), Library(tmp_path / "run")
    scaling = SCALING if channels == CHANNELS else {}
    import_onnx(library, [tmp_path / "theirs.onnx"], dataset, form=OnnxFormat(**scaling), notes=notes)
    series = dataset.inputs[dataset.rows("valid")]
    fed = (series * 0.5 - np.array(SCALING["mean"])) / np.array(SCALING["std"]) if scaling else series
    fed = np.nan_to_num(fed, nan=0.0)
    np.testing.assert_allclose(library.predictions("theirs"), softmax(fed.reshape(len(fed), -1) @ weights), atol=1e-5)
    assert any("does not test for NaN: shorter series are padded with 0" in note for note in notes)


def test_a_file_that_tests_for_nan_gets_the_padding(tmp_path: Path) -> None:
    weights = write_onnx(tmp_path / "theirs.onnx", [LENGTH, CHANNELS], masks=True)
    dataset, notes, library = data(), list[str](), Library(tmp_path / "run")
    import_onnx(library, [tmp_path / "theirs.onnx"], dataset, notes=notes)
    fed = np.nan_to_num(dataset.inputs[dataset.rows("valid")], nan=9.0)
    np.testing.assert_allclose(library.predictions("theirs"), softmax(fed.reshape(len(fed), -1) @ weights), atol=1e-5)
    assert not any("padded" in note for note in notes)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ([LENGTH, CHANNELS, 1], {}, "takes x of 4 axes; series have 3, batch first"),
        ([LENGTH], {}, "takes x of 2 axes; series have 3, batch first"),
        ([LENGTH, 3], {}, r"takes series \(6, 3\), but those of the library are \(6, 2\), channels last"),
        ([LENGTH, CHANNELS], {"layout": "NCL"}, r"takes series \(6, 2\)"),
    ],
)
def test_files_of_other_inputs_are_one_line(
    tmp_path: Path, shape: list[int], options: dict[str, Any], message: str
) -> None:
    write_onnx(tmp_path / "theirs.onnx", shape)
    with pytest.raises(LibraryError, match=message) as caught:
        import_onnx(Library(tmp_path / "run"), [tmp_path / "theirs.onnx"], data(), form=OnnxFormat(**options))
    assert "\n" not in str(caught.value)


def test_a_layout_that_the_shape_does_not_show_is_named(tmp_path: Path) -> None:
    write_onnx(tmp_path / "theirs.onnx", [2, 2])
    dataset = data(length=2)
    dataset = dataclasses.replace(dataset, inputs=np.nan_to_num(dataset.inputs))
    with pytest.raises(LibraryError, match=r"cannot infer the layout of .* pass --layout NLC or NCL"):
        import_onnx(Library(tmp_path / "run"), [tmp_path / "theirs.onnx"], dataset)
    notes: list[str] = []
    import_onnx(Library(tmp_path / "run"), [tmp_path / "theirs.onnx"], dataset, form=OnnxFormat("NCL"), notes=notes)
    assert not any("padded" in note for note in notes)  # no series is shorter


def test_weights_of_a_module_are_imported_where_it_masks_the_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_series.py").write_text(
        "from torch import nn\n"
        "class Masked(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.nan_to_num().sum(2))\n"
        "def masked(configuration, input, classes):\n"
        "    return Masked(input.shape[1], classes)\n"
        "def plain(configuration, input, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(input.shape[0] * input.shape[1], classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    generator, dataset = np.random.default_rng(2), data()
    weights = generator.normal(size=(2, CHANNELS)).astype(np.float32)
    save_file({"weight": weights, "bias": np.zeros(2, np.float32)}, str(tmp_path / "masked.safetensors"))
    library = Library(tmp_path / "run")
    import_torch(library, tmp_path / "masked.safetensors", "their_series:masked", dataset)
    sums = np.nansum(dataset.inputs[dataset.rows("valid")], axis=1)
    np.testing.assert_allclose(library.predictions("masked"), softmax(sums @ weights.T), atol=1e-5)
    flat = generator.normal(size=(2, LENGTH * CHANNELS)).astype(np.float32)
    save_file({"1.weight": flat, "1.bias": np.zeros(2, np.float32)}, str(tmp_path / "plain.safetensors"))
    with pytest.raises(LibraryError, match="plain predicts NaN for series that are padded with NaN at the end; mask"):
        import_torch(library, tmp_path / "plain.safetensors", "their_series:plain", dataset)
