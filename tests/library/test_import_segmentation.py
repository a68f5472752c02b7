"""Import of networks that predict pixels, in every form of their outputs, and of predictions of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.backends.onnx import open_file
from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.import_models import import_onnx
from ripieno.library.import_predictions import import_predictions
from ripieno.library.onnx_adapter import OnnxFormat
from ripieno.types import Dataset
from tests.coloured_squares import CLASSES, COLOURS, coloured_squares

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
SHARP = 2000.0


def write_onnx(path: Path, *, softmax: bool = False, last: bool = False, half: bool = False, classes: int = 3) -> Path:
    """A network that compares each pixel with the colours of the classes, from float images, channels first."""
    colours = np.resize(COLOURS, (classes, 3)).astype(np.float32)
    weights = {
        "w": (colours / SHARP)[:, :, None, None],
        "b": -(colours**2).sum(1) / 2 / SHARP,
    }
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["map"])]
    now = "map"

    def then(operator: str, **attributes: object) -> None:
        nonlocal now
        nodes.append(helper.make_node(operator, [now], [operator], **attributes))
        now = operator

    if half:
        then("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    if softmax:
        then("Softmax", axis=1)
    if last:
        then("Transpose", perm=[0, 2, 3, 1])
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, None, None])],
        [helper.make_tensor_value_info(now, onnx.TensorProto.FLOAT, ["batch", None, None, None])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    return path


def expected(data: Dataset) -> NDArray[np.float64]:
    pixels = data.inputs[data.rows("valid")].astype(np.float64)
    logits = (pixels @ COLOURS.T - (COLOURS**2).sum(1) / 2) / SHARP
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_outputs_of_any_form_become_probabilities_with_the_channels_last(
    tmp_path: Path, softmax: bool, last: bool
) -> None:
    data, library = coloured_squares(), Library(tmp_path / "run")
    form = OnnxFormat(outputs="probabilities" if softmax else "logits")
    (member,) = import_onnx(library, [write_onnx(tmp_path / "net.onnx", softmax=softmax, last=last)], data, form=form)
    stored = library.predictions(member.id)
    assert stored.dtype == np.float16
    assert np.abs(stored - expected(data)).max() < 1e-3
    assert member.losses["valid_mean_iou"] > 0.9
    (served,) = open_file(library.onnx_path(member.id).read_bytes())(data.inputs[:2])
    assert served.shape == (2, 24, 33, 3)
    assert np.abs(served.sum(-1) - 1).max() < 1e-5


def test_smaller_logits_are_enlarged_before_the_softmax(tmp_path: Path) -> None:
    data, library = coloured_squares(width=32), Library(tmp_path / "run")
    path = write_onnx(tmp_path / "net.onnx", half=True)
    (member,) = import_onnx(library, [path], data, form=OnnxFormat(outputs="logits"))
    stored = library.predictions(member.id)
    assert stored.shape == (12, 24, 32, 3)
    assert member.losses["valid_mean_iou"] > 0.8
    # places between four equal ones have their probabilities
    assert (stored.argmax(-1) == expected(data).argmax(-1)).mean() > 0.95


@pytest.mark.parametrize(
    ("options", "outputs", "word"),
    [
        ({"classes": 4}, "logits", r"must be numbers \(batch, 24, 32, 3\) or \(batch, 3, 24, 32\), one per class"),
        ({"half": True, "softmax": True}, "probabilities", r"float32 of shape \(1, 3, 12, 16\)"),
        ({}, "probabilities", "if they are logits, pass --outputs logits"),
        ({"softmax": True}, "logits", "holds probabilities, not logits"),
    ],
)
def test_outputs_that_cannot_be_predictions_are_refused(
    tmp_path: Path, options: dict[str, bool], outputs: str, word: str
) -> None:
    path = write_onnx(tmp_path / "net.onnx", **options)
    with pytest.raises(LibraryError, match=word):
        import_onnx(Library(tmp_path / "run"), [path], coloured_squares(width=32), form=OnnxFormat(outputs=outputs))


def test_predictions_of_pixels_are_imported_with_their_masks(tmp_path: Path) -> None:
    data, library = coloured_squares(), Library(tmp_path / "run")
    masks = data.targets[data.rows("valid")]
    one = expected(data).astype(np.float32)
    cube = np.stack([one, np.roll(one, 1, axis=-1)])
    np.savez(tmp_path / "all.npz", predictions=cube, names=["one", "other"], targets=masks, classes=CLASSES)
    notes: list[str] = []
    members = import_predictions(library, tmp_path / "all.npz", task="segmentation", notes=notes)
    assert [member.id for member in members] == ["one", "other"]
    assert members[0].task == data.task
    assert library.predictions("one").dtype == np.float16
    assert members[0].losses["valid_mean_iou"] > 0.9 > members[1].losses["valid_mean_iou"]
    assert any(note.startswith("other is right for") for note in notes)
    with pytest.raises(LibraryError, match="predictions of 11 samples, but there are 12 masks"):
        import_predictions(library, {"third": one[:-1]})


def test_masks_of_several_sizes_are_refused_in_a_line(tmp_path: Path) -> None:
    masks = [np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)]
    found = {"theirs": np.full((2, 2, 2, 3), 1 / 3, np.float32)}
    with pytest.raises(LibraryError, match="the targets are no array: give those of all samples one shape"):
        import_predictions(Library(tmp_path / "run"), found, targets=masks, task="segmentation")
