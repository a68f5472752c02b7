"""Operations counted in graphs that ripieno did not write."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from ripieno.backends.flops import onnx_flops
from ripieno.errors import LibraryError
from ripieno.models.unet_config import unet_megaflops
from ripieno.types import Input, Task
from tests.backends.made import make
from tests.onnx_networks import write_foreign, write_network


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_network(tmp_path / "model.onnx", shape=(8, 8, 3), classes=4, filters=8)
    return tmp_path / "model.onnx"


def test_convolutions_and_products_are_counted(path: Path) -> None:
    convolution, product = 8 * 8 * 8 * (3 * 3 * 3), 8 * 4
    assert onnx_flops(path) == 2 * (convolution + product)


def test_a_padded_network_is_counted_as_its_configuration_says(tmp_path: Path) -> None:
    task = Task("segmentation", (18, 22, 3), ("a", "b", "c"))
    made = make(tmp_path, {"width": 4, "levels": 3}, Input((18, 22, 1)), "unet", task=task)
    assert onnx_flops(made.path("onnx")) == 2e6 * unet_megaflops(made.member.configuration, made.member.input, 3)


def test_weights_that_stand_among_the_inputs_change_nothing(path: Path) -> None:
    expected = onnx_flops(path)
    model = onnx.load(str(path))
    for w in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)))
    onnx.save(model, str(path))
    assert onnx_flops(path) == expected


def test_a_graph_with_unknown_operators_is_one_line(tmp_path: Path) -> None:
    write_foreign(tmp_path / "theirs.onnx")
    with pytest.raises(LibraryError, match="the operations of Theirs cannot be counted") as caught:
        onnx_flops(tmp_path / "theirs.onnx")
    assert "\n" not in str(caught.value)


def test_an_input_without_axes_is_one_line(path: Path) -> None:
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, str(path))
    with pytest.raises(LibraryError, match="cannot be inferred"):
        onnx_flops(path)


def write_pair(path: Path, columns: int | str) -> None:
    """Write the product of two inputs, the first in rows of which only running shows the number."""
    given = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 12]),
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch", 4, columns]),
    ]
    nodes = [
        helper.make_node("Equal", ["images", "images"], ["all"]),
        helper.make_node("NonZero", ["all"], ["places"]),
        helper.make_node("Shape", ["places"], ["size"], start=1, end=2),
        helper.make_node("Div", ["size", "width"], ["rows"]),
        helper.make_node("Concat", ["one", "rows", "width"], ["shape"], axis=0),
        helper.make_node("Reshape", ["images", "shape"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "weights"], ["found"]),
    ]
    constants = [helper.make_tensor(name, TensorProto.INT64, [1], [size]) for name, size in (("one", 1), ("width", 4))]
    found = [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["batch", "rows", columns])]
    graph = helper.make_graph(nodes, "pair", given, found, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def test_all_inputs_are_fed_where_shapes_are_computed(tmp_path: Path) -> None:
    write_pair(tmp_path / "pair.onnx", 5)
    assert onnx_flops(tmp_path / "pair.onnx") == 2 * 3 * 5 * 4


def test_an_input_of_any_size_is_one_line(tmp_path: Path) -> None:
    write_pair(tmp_path / "pair.onnx", "columns")
    with pytest.raises(LibraryError, match=r"pair\.onnx: the shapes .* its input weights has no fixed shape"):
        onnx_flops(tmp_path / "pair.onnx")
