"""Import of external networks: ONNX files of every form, and PyTorch weights, predict as in their own framework."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno import backends
from ripieno.data import write_dataset
from ripieno.errors import LibraryError, ModelError, RipienoError
from ripieno.library import Library
from ripieno.library.import_models import import_onnx, import_torch
from ripieno.library.onnx_adapter import OnnxFormat
from ripieno.types import Dataset, Device, classification

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper = onnx.helper

SHAPE = (6, 5, 3)
CLASSES = ("cat", "dog", "eel")
MEAN, STD = (100.0, 120.0, 90.0), (50.0, 60.0, 55.0)


def data(samples: int = 30) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (samples, *SHAPE), dtype=np.uint8)
    labels = rng.integers(0, 3, samples)
    split = (np.arange(samples) % 3).astype(np.uint8)
    return Dataset("toy", images, labels, split, classification(CLASSES), MEAN, STD)


WEIGHTS = np.random.default_rng(1).normal(size=(90, 3)).astype(np.float32) / 9


def write_onnx(
    path: Path,
    *,
    layout: str = "NHWC",
    kind: int = onnx.TensorProto.FLOAT,
    softmax: bool = True,
    dims: list[object] | None = None,
    inputs: int = 1,
) -> Path:
    """A linear network over pixels; `WEIGHTS` answers to channels-last order."""
    order = WEIGHTS.reshape(*SHAPE, 3)
    weights = order if layout == "NHWC" else order.transpose(2, 0, 1, 3)
    shape = SHAPE if layout == "NHWC" else (SHAPE[2], *SHAPE[:2])
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits" if softmax else "y"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["y"], axis=1))
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info(f"x{i or ''}", kind, dims or ["n", *shape]) for i in range(inputs)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(weights.reshape(90, 3).copy(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def expected(images: NDArray[np.float64]) -> NDArray[np.float64]:
    logits = images.reshape(len(images), -1) @ WEIGHTS.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "run")


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_an_onnx_file_of_any_form_answers_as_it_did_at_home(
    library: Library, tmp_path: Path, layout: str, softmax: bool, scaled: bool
) -> None:
    path = write_onnx(tmp_path / "theirs.onnx", layout=layout, softmax=softmax)
    mean, std = ((0.4, 0.5, 0.3), (0.2, 0.3, 0.1)) if scaled else ((), ())
    form = OnnxFormat(outputs="probabilities" if softmax else "logits", scale=1 / 255, mean=mean, std=std)
    dataset = data()
    (member,) = import_onnx(library, [path], dataset, form=form)
    rows = dataset.rows("valid")
    fed = (dataset.inputs[rows] / 255 - np.array(mean or 0.0)) / np.array(std or 1.0)
    assert library.predictions("theirs") == pytest.approx(expected(fed), abs=1e-5)
    assert member.losses["valid_cross_entropy"] > 0
    assert member.parameters == 270
    runner = backends.load("onnx", library.onnx_path("theirs"), member, Device("cpu:0", "cpu", 0), 1)
    assert runner.infer(dataset.inputs[rows][:2]) == pytest.approx(expected(fed[:2]), abs=1e-5)
    runner.close()


def test_a_network_of_a_data_set_whose_classes_are_numbers_is_judged_by_their_order(
    library: Library, tmp_path: Path
) -> None:
    numbered = dataclasses.replace(data(), task=classification(("1", "2", "3")))
    import_onnx(library, [write_onnx(tmp_path / "theirs.onnx")], numbered)
    assert library.targets().tolist() == numbered.targets[numbered.rows("valid")].tolist()


def test_a_file_that_takes_bytes_is_fed_bytes(library: Library, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "theirs.onnx", kind=onnx.TensorProto.UINT8)
    dataset = data()
    import_onnx(library, [path], dataset)
    fed = dataset.inputs[dataset.rows("valid")].astype(np.float64)
    assert library.predictions("theirs") == pytest.approx(expected(fed), abs=1e-4)


def test_a_library_keeps_the_data_set_it_was_given_and_uses_it_again(library: Library, tmp_path: Path) -> None:
    form = OnnxFormat(scale=1 / 255)
    import_onnx(library, [write_onnx(tmp_path / "one.onnx")], data(), form=form)
    assert (library.dataset_path / "dataset.json").exists()
    import_onnx(library, [write_onnx(tmp_path / "two.onnx")], form=OnnxFormat(scale=1 / 200))
    assert library.ids() == ["one", "two"]


CASES: list[tuple[str, dict[str, object], OnnxFormat]] = [
    ("does not exist", {"absent": True}, OnnxFormat()),
    ("is not a readable ONNX file", {"broken": True}, OnnxFormat()),
    ("takes 2 inputs", {"inputs": 2}, OnnxFormat()),
    ("takes x of 2 axes", {"dims": ["n", 90]}, OnnxFormat()),
    (r"takes images \(3, 7, 5\)", {"dims": ["n", 3, 7, 5]}, OnnxFormat()),
    ("cannot infer the layout of", {"dims": ["n", None, None, None]}, OnnxFormat()),
    (r"takes images \(6, 5, 3\)", {}, OnnxFormat(layout="NCHW")),
    ("mean and std have 1 and 3 values", {}, OnnxFormat(mean=[0.5])),
    ("mean and std have 3 and 3 values", {}, OnnxFormat(std=[1.0, 0.0, 1.0])),
    ("y holds numbers from .* pass --outputs logits", {"softmax": False}, OnnxFormat()),
    ("cannot predict a batch of 30, .* fixed batch size 1", {"dims": [1, *SHAPE], "fixed": True}, OnnxFormat()),
]


@pytest.mark.parametrize(("line", "options", "form"), CASES, ids=[line for line, _, _ in CASES])
def test_a_file_that_cannot_be_used_is_one_line_and_changes_nothing(
    library: Library, tmp_path: Path, line: str, options: dict[str, object], form: OnnxFormat
) -> None:
    path = tmp_path / "theirs.onnx"
    write_dataset(data(), library.dataset_path)
    before = sorted(p.name for p in library.path.rglob("*"))
    if options.pop("broken", False):
        path.write_bytes(b"nonsense")
    elif options.pop("fixed", False):
        write_fixed(path)
    elif not options.pop("absent", False):
        write_onnx(path, **options)  # type: ignore[arg-type]
    with pytest.raises(LibraryError, match=line) as caught:
        import_onnx(library, [path], form=form)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in library.path.rglob("*")) == before


def write_fixed(path: Path) -> None:
    """Write a file with a graph for a batch of one only."""
    write_onnx(path, dims=[1, *SHAPE])
    model = onnx.load(str(path))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 90]), "one"))
    model.graph.node[1].CopyFrom(helper.make_node("Reshape", ["floats", "one"], ["flat"]))
    path.write_bytes(model.SerializeToString())


def test_a_file_without_a_data_set_to_run_on_is_one_line(library: Library, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="has no data set to run networks on"):
        import_onnx(library, [write_onnx(tmp_path / "theirs.onnx")])


def test_another_data_set_than_the_librarys_is_refused(library: Library, tmp_path: Path) -> None:
    write_dataset(data(), library.dataset_path)
    with pytest.raises(LibraryError, match="has another data set"):
        import_onnx(library, [write_onnx(tmp_path / "theirs.onnx")], data(20))


FAMILY = """
from torch import nn

def net(configuration, input, classes):
    height, width, channels = input.shape
    return nn.Sequential(nn.Flatten(), nn.Linear(height * width * channels, classes))

class Whole(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, images):
        return self.body(images)

def normalised(configuration, input, classes):
    return nn.Sequential(nn.BatchNorm2d(3), *net(configuration, input, classes))

class Softened(Whole):
    def forward(self, images):
        return self.body(images).softmax(1)

def softened(configuration, input, classes):
    return Softened(net(configuration, input, classes))

def dropping(configuration, input, classes):
    class Dropping(Whole):
        def forward(self, images):
            return self.body(nn.functional.dropout(images, 0.5, training=True))
    return Dropping(net(configuration, input, classes))

def bodied(configuration, input, classes):
    return Whole(net(configuration, input, classes))
"""


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("torch")
    (tmp_path / "theirfamily.py").write_text(FAMILY)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "theirfamily:net"


def write_weights(path: Path, prefix: str = "", factor: float = 1.0) -> Path:
    from safetensors.numpy import save_file

    ordered = WEIGHTS.reshape(*SHAPE, 3).transpose(2, 0, 1, 3).reshape(90, 3)
    tensors = {f"{prefix}1.weight": factor * ordered.T.copy(), f"{prefix}1.bias": np.zeros(3, np.float32)}
    save_file(tensors, str(path))
    return path


def write_tensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    from safetensors.numpy import save_file

    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, str(path))
    return path


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_names_of_weights_may_stand_behind_one_prefix(
    library: Library, tmp_path: Path, family: str, prefix: str
) -> None:
    import_torch(library, write_weights(tmp_path / "plain.safetensors"), family, data())
    import_torch(library, write_weights(tmp_path / "b.safetensors", prefix), family, replace=True, name="plain")
    fed = (data().inputs[data().rows("valid")] - np.array(MEAN)) / np.array(STD)
    assert library.predictions("plain") == pytest.approx(expected(fed), abs=1e-5)


def test_a_prefix_that_not_all_names_have_is_none(library: Library, tmp_path: Path, family: str) -> None:
    shapes = {"module.1.weight": (3, 90), "module.1.bias": (3,), "loss.weight": (3,)}
    with pytest.raises(LibraryError, match=r"it has no 1\.bias and it has loss\.weight"):
        import_torch(library, write_tensors(tmp_path / "a.safetensors", shapes), family, data())


def test_a_name_that_the_network_has_not_is_refused(library: Library, tmp_path: Path, family: str) -> None:
    shapes = {"1.weight": (3, 90), "1.bias": (3,), "loss.weight": (3,)}
    with pytest.raises(LibraryError, match=r"another network: it has loss\.weight, which the network lacks"):
        import_torch(library, write_tensors(tmp_path / "a.safetensors", shapes), family, data())


def test_statistics_of_normalisation_are_no_parameters(library: Library, tmp_path: Path, family: str) -> None:
    shapes = {"0.weight": (3,), "0.bias": (3,), "0.running_mean": (3,), "0.running_var": (3,)}
    shapes |= {"0.num_batches_tracked": (), "2.weight": (3, 90), "2.bias": (3,)}
    path = write_tensors(tmp_path / "a.safetensors", shapes)
    (member,) = import_torch(library, path, "theirfamily:normalised", data())
    assert member.parameters == 3 + 3 + 270 + 3


def test_torch_weights_answer_as_they_did_at_home(library: Library, tmp_path: Path, family: str) -> None:
    dataset = data()
    (member,) = import_torch(library, write_weights(tmp_path / "theirs.safetensors"), family, dataset)
    fed = (dataset.inputs[dataset.rows("valid")] - np.array(MEAN)) / np.array(STD)
    assert library.predictions("theirs") == pytest.approx(expected(fed), abs=1e-5)
    assert member.parameters == 273
    device = Device("cpu:0", "cpu", 0)
    runner = backends.load("torch", library.weights_path("theirs"), member, device, 1, trusted=(family,))
    assert runner.infer(dataset.inputs[dataset.rows("valid")][:2]) == pytest.approx(expected(fed[:2]), abs=1e-5)
    runner.close()


def test_torch_weights_are_fed_scaled_images_as_they_were_at_home(
    library: Library, tmp_path: Path, family: str
) -> None:
    dataset = data()
    images = dataset.inputs[dataset.rows("valid")] / 255
    mean, std = (0.4, 0.5, 0.3), (0.2, 0.3, 0.1)
    import_torch(library, write_weights(tmp_path / "bare.safetensors"), family, dataset, scale=1 / 255)
    assert library.predictions("bare") == pytest.approx(expected(images), abs=1e-5)
    path = write_weights(tmp_path / "whole.safetensors")
    import_torch(library, path, family, scale=1 / 255, mean=mean, std=std)
    fed = (images - np.array(mean)) / np.array(std)
    assert library.predictions("whole") == pytest.approx(expected(fed), abs=1e-5)
    with pytest.raises(LibraryError, match="mean and std have 1 and 3 values"):
        import_torch(library, write_weights(tmp_path / "c.safetensors"), family, mean=(0.4,))


def test_a_part_that_is_called_body_makes_nobodys_network_one_of_ours(
    library: Library, tmp_path: Path, family: str
) -> None:
    dataset = data()
    path = write_weights(tmp_path / "theirs.safetensors", "body.")
    import_torch(library, path, "theirfamily:bodied", dataset)
    fed = (dataset.inputs[dataset.rows("valid")] - np.array(MEAN)) / np.array(STD)
    assert library.predictions("theirs") == pytest.approx(expected(fed), abs=1e-5)


def test_a_family_that_ends_in_a_softmax_is_refused(library: Library, tmp_path: Path, family: str) -> None:
    path = write_weights(tmp_path / "theirs.safetensors", "body.")
    with pytest.raises(ModelError, match="returned probabilities; expected logits; remove its softmax"):
        import_torch(library, path, "theirfamily:softened", data())


def test_a_family_that_drops_pixels_while_it_predicts_is_refused(library: Library, tmp_path: Path, family: str) -> None:
    path = write_weights(tmp_path / "theirs.safetensors", "body.")
    with pytest.raises(LibraryError, match="theirs predicts the same batch differently each time"):
        import_torch(library, path, "theirfamily:dropping", data())
    assert not library.path.exists()


def test_weights_of_a_member_of_ours_bring_their_normalisation(library: Library, tmp_path: Path, family: str) -> None:
    first = Library(tmp_path / "first")
    import_torch(first, write_weights(tmp_path / "theirs.safetensors"), family, data(), scale=1 / 255)
    kept = first.weights_path("theirs")
    import_torch(library, kept, family, data(), name="again")
    assert (library.predictions("again") == first.predictions("theirs")).all()
    with pytest.raises(LibraryError, match="its own normalisation; leave out scale, mean and std"):
        import_torch(library, kept, family, name="other", scale=1 / 255)


def test_of_several_weights_all_are_added_or_none(library: Library, tmp_path: Path, family: str) -> None:
    good = [write_weights(tmp_path / f"{i}.safetensors", factor=1.0 + i) for i in range(2)]
    bad = write_tensors(tmp_path / "bad.safetensors", {"stem.weight": (3, 90)})
    with pytest.raises(LibraryError, match=r"bad\.safetensors holds the weights of another network"):
        import_torch(library, [*good, bad], family, data())
    assert not library.path.exists()
    assert [m.id for m in import_torch(library, good, family, data())] == ["0", "1"]


def test_torch_weights_that_do_not_fit_are_one_line_and_change_nothing(
    library: Library, tmp_path: Path, family: str
) -> None:
    with pytest.raises(LibraryError, match=r"a\.safetensors .* it has no 1\.bias and it has stem\.weight, which the"):
        import_torch(library, write_tensors(tmp_path / "a.safetensors", {"stem.weight": (3, 90)}), family, data())
    shapes = {"1.weight": (3, 80), "1.bias": (3,)}
    with pytest.raises(LibraryError, match=r"f\.safetensors .* 1\.weight is \(3, 80\), must be \(3, 90\)"):
        import_torch(library, write_tensors(tmp_path / "f.safetensors", shapes), family, data())
    (tmp_path / "b.safetensors").write_bytes(b"nonsense")
    with pytest.raises(LibraryError, match=r"not a readable .safetensors"):
        import_torch(library, tmp_path / "b.safetensors", family, data())
    with pytest.raises(LibraryError, match="does not exist"):
        import_torch(library, tmp_path / "c.safetensors", family, data())
    with pytest.raises(ModelError, match="cannot import nowhere"):
        import_torch(library, write_weights(tmp_path / "d.safetensors"), "nowhere:net", data())
    with pytest.raises(RipienoError, match="unknown family 'magic'"):
        import_torch(library, write_weights(tmp_path / "e.safetensors"), "magic", data())
    assert not library.path.exists()
