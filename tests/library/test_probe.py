"""Probes of external networks before their predictions are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.errors import BrokenFileWarning, LibraryError
from ripieno.library import Library
from ripieno.library.evaluate import evaluate
from ripieno.library.import_models import import_onnx
from ripieno.library.onnx_adapter import OnnxFormat, OnnxNetwork
from ripieno.types import Dataset, Member, classification

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, FLOAT, INT64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64

CLASSES = ("ant", "bee", "cow")
POOL = helper.make_node("ReduceMean", ["x"], ["pooled"], axes=[1, 2], keepdims=0)
HEAD = helper.make_node("MatMul", ["pooled", "w"], ["z"])
SOFTMAX = helper.make_node("Softmax", ["z"], ["y"], axis=1)
WEIGHTS = np.eye(3, dtype=np.float32) / 20


def data(samples: int = 60) -> Dataset:
    """The class of an image is its brightest channel."""
    generator = np.random.default_rng(0)
    labels = np.arange(samples) // 3 % 3
    images = generator.integers(0, 90, (samples, 4, 4, 3), np.uint8)
    images[np.arange(samples), :, :, labels] += 100
    split = (np.arange(samples) % 3).astype(np.uint8)
    return Dataset("toy", images, labels, split, classification(CLASSES), (90.0,) * 3, (50.0,) * 3)


def node(kind: str, given: str, made: str, **attributes: Any) -> Any:
    return helper.make_node(kind, given.split(), made.split(), **attributes)


def write(
    path: Path,
    nodes: list[Any],
    outputs: dict[str, tuple[int, int]] | None = None,
    batch: object = "n",
    **constants: Any,
) -> Path:
    """An ONNX file of `nodes` from x (batch, 4, 4, 3) to `outputs`, type and axes by name; by default to y."""
    made = {"y": (FLOAT, 2)} if outputs is None else outputs
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("x", FLOAT, [batch, 4, 4, 3])],
        [helper.make_tensor_value_info(name, kind, [None] * axes) for name, (kind, axes) in made.items()],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in {"w": WEIGHTS, **constants}.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def imported(tmp_path: Path, notes: list[str] | None = None, **form: Any) -> Member:
    (member,) = import_onnx(
        Library(tmp_path / "run"), [tmp_path / "net.onnx"], data(), form=OnnxFormat(**form), notes=notes
    )
    return member


def refused(tmp_path: Path, match: str, **form: Any) -> None:
    with pytest.raises(LibraryError, match=match) as caught:
        imported(tmp_path, **form)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_sound_network_is_taken_without_a_word(tmp_path: Path) -> None:
    notes: list[str] = []
    write(tmp_path / "net.onnx", [POOL, HEAD, SOFTMAX])
    assert imported(tmp_path, notes).losses["valid_accuracy"] == 1.0
    assert notes == []


def test_a_network_whose_answers_depend_on_the_batch_is_refused(tmp_path: Path) -> None:
    nodes = [POOL, HEAD, node("ReduceMean", "z", "m", axes=[0]), node("Sub", "z m", "n")]
    write(tmp_path / "net.onnx", [*nodes, node("Softmax", "n", "y", axis=1)])
    refused(tmp_path, "net predicts a sample differently with other samples in its batch.*evaluation mode")


def test_a_network_in_training_mode_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime even keeps the statistics of one batch for the next."""
    norm = node("BatchNormalization", "z scale shift mean var", "n m v", training_mode=1)
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    nodes = [POOL, HEAD, norm, node("Softmax", "n", "y", axis=1)]
    write(tmp_path / "net.onnx", nodes, scale=ones, shift=zeros, mean=zeros, var=ones)
    refused(tmp_path, "net predicts .* batch.*evaluation mode")


def test_what_the_batch_moves_a_little_is_noted(tmp_path: Path) -> None:
    """As dynamic quantisation does, which takes its scale from the whole batch."""
    notes: list[str] = []
    nodes = [
        POOL,
        node("DynamicQuantizeLinear", "pooled", "q scale zero"),
        node("DequantizeLinear", "q scale zero", "p"),
    ]
    write(tmp_path / "net.onnx", [*nodes, node("MatMul", "p w", "z"), SOFTMAX], w=WEIGHTS / 4)
    imported(tmp_path, notes)
    assert len(notes) == 1
    assert "differently with other samples in its batch" in notes[0]


def test_a_network_that_rolls_dice_is_refused(tmp_path: Path) -> None:
    dice = [node("RandomUniformLike", "pooled", "dice", high=200.0), node("Add", "pooled dice", "d")]
    write(tmp_path / "net.onnx", [POOL, *dice, node("MatMul", "d w", "z"), SOFTMAX])
    refused(tmp_path, "net predicts the same batch differently each time")


KINDS: list[tuple[str, list[Any], str, str]] = [
    ("probabilities", [SOFTMAX], "logits", "y holds probabilities, not logits"),
    (
        "log-probabilities",
        [node("LogSoftmax", "z", "y", axis=1)],
        "probabilities",
        "y holds logarithms of prob.*logits",
    ),
    ("logits", [node("Neg", "z", "y")], "probabilities", "y holds numbers from .* pass --outputs logits"),
    ("sigmoids", [node("Sigmoid", "z", "y")], "probabilities", "sum to .* sigmoid"),
]


@pytest.mark.parametrize(("nodes", "outputs", "says"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])
def test_numbers_that_are_not_what_they_are_said_to_be_are_refused(
    tmp_path: Path, nodes: list[Any], outputs: str, says: str
) -> None:
    write(tmp_path / "net.onnx", [POOL, HEAD, *nodes])
    refused(tmp_path, says, outputs=outputs)


def test_logarithms_of_probabilities_are_logits(tmp_path: Path) -> None:
    write(tmp_path / "net.onnx", [POOL, HEAD, node("LogSoftmax", "z", "y", axis=1)])
    member = imported(tmp_path, outputs="logits")
    write(tmp_path / "net.onnx", [POOL, HEAD, SOFTMAX])
    (tmp_path / "other").mkdir()
    (tmp_path / "net.onnx").rename(tmp_path / "other" / "net.onnx")
    assert member.losses == pytest.approx(imported(tmp_path / "other").losses, abs=1e-6)


@pytest.mark.parametrize("first", ["Softmax", "Sigmoid"])
def test_a_softmax_of_what_is_in_0_to_1_already_is_noted(tmp_path: Path, first: str) -> None:
    notes: list[str] = []
    kwargs = {"axis": 1} if first == "Softmax" else {}
    shifted = [node("Sub", "z middle", "s"), node(first, "s", "p", **kwargs), node("Softmax", "p", "y", axis=1)]
    write(tmp_path / "net.onnx", [POOL, HEAD, *shifted], w=WEIGHTS * 3, middle=np.float32(20))
    imported(tmp_path, notes)
    assert len(notes) == 1
    assert notes[0].startswith("net has no probability above ")


def test_two_outputs_of_the_right_shape_are_refused_until_one_is_named(tmp_path: Path) -> None:
    auxiliary = [node("MatMul", "pooled v", "u"), node("Softmax", "u", "aux", axis=1)]
    outputs = {"aux": (FLOAT, 2), "y": (FLOAT, 2)}
    write(tmp_path / "net.onnx", [POOL, HEAD, SOFTMAX, *auxiliary], outputs, v=WEIGHTS / 100)
    refused(tmp_path, r"2 possible outputs for its predictions \(aux, y\); name the right one with --tensor")
    refused(tmp_path, "has no output 'why'; its outputs are aux, y", tensor="why")
    assert imported(tmp_path, tensor="y").losses["valid_cross_entropy"] < 0.1
    (tmp_path / "other").mkdir()
    (tmp_path / "net.onnx").rename(tmp_path / "other" / "net.onnx")
    assert imported(tmp_path / "other", tensor="aux").losses["valid_cross_entropy"] > 1


def test_of_labels_and_probabilities_the_probabilities_are_taken_and_said(tmp_path: Path) -> None:
    notes: list[str] = []
    outputs = {"label": (INT64, 1), "y": (FLOAT, 2)}
    write(tmp_path / "net.onnx", [POOL, HEAD, SOFTMAX, node("ArgMax", "y", "label", axis=1, keepdims=0)], outputs)
    assert imported(tmp_path, notes).losses["valid_accuracy"] == 1.0
    assert len(notes) == 1
    assert "uses the output y, not label" in notes[0]


def test_a_map_of_probabilities_is_refused_with_the_way_to_export_it(tmp_path: Path) -> None:
    zipped = helper.make_node("ZipMap", ["y"], ["map"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    path = write(tmp_path / "net.onnx", [POOL, HEAD, SOFTMAX, zipped])
    model = onnx.load(str(path))
    sequence = helper.make_sequence_type_proto(
        helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
    )
    model.graph.output[0].CopyFrom(helper.make_value_info("map", sequence))
    path.write_bytes(model.SerializeToString())
    refused(tmp_path, "map is a sequence of maps .*zipmap=False")


SHAPES: list[tuple[str, list[Any], str]] = [
    ("labels", [node("ArgMax", "z", "y", axis=1, keepdims=0)], r"y is int64 of shape \(1,\)"),
    ("whole numbers", [node("Cast", "z", "y", to=INT64)], r"y is int64 of shape \(1, 3\)"),
    ("rank 3", [node("Unsqueeze", "z last", "y")], r"y is float32 of shape \(1, 3, 1\)"),
    ("other classes", [node("Concat", "z z", "y", axis=1)], r"y is float32 of shape \(1, 6\).*\(batch, 3\)"),
]


@pytest.mark.parametrize(("nodes", "says"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_an_output_that_is_no_number_a_class_is_refused(tmp_path: Path, nodes: list[Any], says: str) -> None:
    kind = {"ArgMax": (INT64, 1), "Cast": (INT64, 2), "Unsqueeze": (FLOAT, 3)}.get(nodes[0].op_type, (FLOAT, 2))
    write(tmp_path / "net.onnx", [POOL, HEAD, *nodes], {"y": kind}, last=np.array([2], np.int64))
    refused(tmp_path, says)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("place", ["head", "body"])
def test_a_graph_that_holds_for_one_batch_size_is_refused(tmp_path: Path, batch: int, place: str) -> None:
    shape = np.array([batch, -1] if place == "head" else [batch, -1, 1, 3], np.int64)
    reshape = node("Reshape", "z shape" if place == "head" else "x shape", "r")
    if place == "head":
        nodes = [POOL, HEAD, reshape, node("Softmax", "r", "y", axis=1)]
    else:
        nodes = [reshape, node("ReduceMean", "r", "pooled", axes=[1, 2], keepdims=0), HEAD, SOFTMAX]
    write(tmp_path / "net.onnx", nodes, batch=batch, shape=shape)
    refused(tmp_path, f"fixed batch size {batch}|batch axis of any size|an output must be numbers \\(batch, 3\\)")


def test_a_declared_batch_that_the_graph_does_not_hold_to_is_no_reason(tmp_path: Path) -> None:
    write(tmp_path / "net.onnx", [POOL, HEAD, SOFTMAX], batch=8)
    assert imported(tmp_path).losses["valid_accuracy"] == 1.0


def test_an_answer_that_is_not_finite_is_refused_with_its_sample(tmp_path: Path) -> None:
    """The graph divides by zero for one validation image, the fourth."""
    only = data()
    dark = np.flatnonzero(only.split == 1)[3]
    only.inputs[dark] = 0
    shifted = [POOL, HEAD, node("ReduceMax", "z", "most", axes=[1], keepdims=1), node("Div", "z most", "r")]
    write(tmp_path / "net.onnx", [*shifted, node("Softmax", "r", "y", axis=1)])
    with pytest.raises(LibraryError, match="net: 3 predictions are NaN or infinite, first of sample 3"):
        import_onnx(Library(tmp_path / "run"), [tmp_path / "net.onnx"], only)


def test_test_predictions_that_are_not_finite_are_left_out_with_a_warning(tmp_path: Path) -> None:
    only = data()
    only.inputs[np.flatnonzero(only.split == 2)[5]] = 0
    shifted = [POOL, HEAD, node("ReduceMax", "z", "most", axes=[1], keepdims=1), node("Div", "z most", "r")]
    write(tmp_path / "net.onnx", [*shifted, node("Softmax", "r", "y", axis=1)])
    library = Library(tmp_path / "run")
    import_onnx(library, [tmp_path / "net.onnx"], only)
    with pytest.warns(BrokenFileWarning, match="net: 3 predictions are NaN or infinite, first of sample 5"):
        evaluate(library, ["net"])
    assert not library.has_predictions("net", "test")


def test_classes_in_another_order_are_said_with_the_order(tmp_path: Path) -> None:
    notes: list[str] = []
    write(tmp_path / "net.onnx", [POOL, node("MatMul", "pooled turned", "z"), SOFTMAX], turned=WEIGHTS[:, [1, 2, 0]])
    imported(tmp_path, notes)
    assert len(notes) == 1
    assert notes[0].startswith(
        "net is right for 0% of 20 samples, but for 100% if its columns are the classes bee, cow, ant"
    )


def parameters(path: Path) -> int:
    return OnnxNetwork(path, data().input, OnnxFormat()).parameters


def test_weights_in_constant_nodes_are_counted(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(WEIGHTS, "v")
    nodes = [helper.make_node("Constant", [], ["v"], value=tensor), POOL, node("MatMul", "pooled v", "z"), SOFTMAX]
    path = write(tmp_path / "net.onnx", nodes, w=np.zeros(1, np.int64))
    assert parameters(path) == 9


def test_weights_in_branches_are_counted_and_answer(tmp_path: Path) -> None:
    def branch(factor: float) -> Any:
        weights = onnx.numpy_helper.from_array(WEIGHTS * np.float32(factor), f"v{factor}")
        nodes = [helper.make_node("MatMul", ["pooled", f"v{factor}"], [f"z{factor}"])]
        value = helper.make_tensor_value_info(f"z{factor}", FLOAT, None)
        return helper.make_graph(nodes, "branch", [], [value], [weights])

    chosen = helper.make_node("If", ["yes"], ["z"], then_branch=branch(1.0), else_branch=branch(2.0))
    path = write(tmp_path / "net.onnx", [POOL, chosen, SOFTMAX], w=np.zeros(1, np.int64), yes=np.bool_(True))
    assert parameters(path) == 18
    assert imported(tmp_path).losses["valid_accuracy"] == 1.0


def test_quantised_weights_are_counted_and_shapes_and_scalars_are_not(tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", "q scale zero", "v"), POOL, node("MatMul", "pooled v", "z"), SOFTMAX]
    quantised = np.eye(3, dtype=np.int8) * 100
    numbers = {"q": quantised, "scale": np.float32(0.0005), "zero": np.int8(0), "w": np.array([1, 3], np.int64)}
    assert parameters(write(tmp_path / "net.onnx", nodes, **numbers)) == 9
    assert imported(tmp_path).losses["valid_accuracy"] == 1.0


def test_weights_beside_the_file_are_counted_and_their_absence_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.onnx", [POOL, HEAD, SOFTMAX])
    model = onnx.load(str(path))
    onnx.save(model, str(tmp_path / "net.onnx"), save_as_external_data=True, location="net.data", size_threshold=0)
    assert parameters(tmp_path / "net.onnx") == 9
    assert imported(tmp_path).losses["valid_accuracy"] == 1.0
    (tmp_path / "net.data").unlink()
    with pytest.raises(LibraryError, match=r"is not a readable ONNX file: .*net\.data"):
        parameters(tmp_path / "net.onnx")
