"""Operations counted in graphs that ripieno did not write."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

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
