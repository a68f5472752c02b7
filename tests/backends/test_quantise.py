from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from ripieno.backends.quantise import write_fp16, write_int8
from ripieno.errors import EngineError
from tests.backends.made import Made
from tests.onnx_networks import write_trees


def test_quantising_twice_gives_the_same_bytes(coloured: Made, tmp_path: Path) -> None:
    for name in "ab":
        write_int8(coloured.path("onnx"), tmp_path / name, coloured.images)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_convolution_is_in_int8(digit: Made, tmp_path: Path) -> None:
    write_int8(digit.path("onnx"), tmp_path / "int8.onnx", digit.images)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    assert all(made_by[name] == "DequantizeLinear" for node in convolutions for name in node.input[:2])


def test_the_images_it_is_calibrated_on_matter(digit: Made, tmp_path: Path) -> None:
    write_int8(digit.path("onnx"), tmp_path / "a", digit.images)
    write_int8(digit.path("onnx"), tmp_path / "b", np.zeros_like(digit.images))
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_fp16_keeps_input_and_output_as_they_are(digit: Made, tmp_path: Path) -> None:
    write_fp16(digit.path("onnx"), tmp_path / "half.onnx")
    graph = onnx.load(tmp_path / "half.onnx").graph
    kinds = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    assert kinds == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT]
    assert any(w.data_type == onnx.TensorProto.FLOAT16 for w in graph.initializer)


@pytest.mark.parametrize("write", [lambda a, b, images: write_int8(a, b, images), lambda a, b, _: write_fp16(a, b)])
def test_a_file_that_cannot_be_converted_is_named_and_nothing_written(write, digit: Made, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"broken\.onnx cannot be") as caught:
        write(tmp_path / "broken.onnx", tmp_path / "made.onnx", digit.images)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made.onnx").exists()


@pytest.mark.parametrize("write", [lambda a, b, images: write_int8(a, b, images), lambda a, b, _: write_fp16(a, b)])
def test_trees_are_not_called_int8_or_fp16(write, digit: Made, tmp_path: Path) -> None:
    write_trees(tmp_path / "trees.onnx")
    with pytest.raises(EngineError, match=r"trees\.onnx has no convolutions or matrix products"):
        write(tmp_path / "trees.onnx", tmp_path / "made.onnx", np.zeros((9, 8, 8, 3), np.uint8))
    assert not (tmp_path / "made.onnx").exists()


def test_converting_is_silent(digit: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_int8(digit.path("onnx"), tmp_path / "a", digit.images)
    write_fp16(digit.path("onnx"), tmp_path / "b")
    assert capfd.readouterr() == ("", "")
