"""Members that share a backbone: exported in two parts, loaded alone or together, joined for other servers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from ripieno import backends
from ripieno.backends.merge_onnx import merge_onnx, whole_onnx
from ripieno.backends.network_part import backbone_file
from ripieno.backends.onnx import open_file
from ripieno.backends.shared_backbone import SharedBackbone
from ripieno.errors import EngineError, LibraryError
from ripieno.types import Input, Task, classification
from tests.shared_networks import CPU, FAMILY, Shared, shared_networks

FILES = {"onnx": "model.onnx", "openvino": "model.onnx", "torch": "weights.safetensors"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_networks(tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.mark.parametrize("backend", FILES)
def test_a_member_alone_and_its_unit_predict_what_the_whole_network_predicts(shared: Shared, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    models = [(shared.path(member, FILES[backend]), member) for member in shared.members]
    for (path, member), expected in zip(models, shared.predictions, strict=True):
        alone = backends.load(backend, path, member, CPU, 1, [FAMILY])
        np.testing.assert_allclose(alone.infer(shared.images), expected, atol=1e-5)
        assert alone.infer(shared.images[:0]).shape == (0, 4)
        with pytest.raises(EngineError, match="got inputs"):
            alone.infer(shared.images[:, 1:])
        alone.close()

    def load(*what, part="whole"):
        return backends.load(*what, trusted=[FAMILY], part=part)

    unit = backends.load_unit(load, backend, models, CPU, 1)
    assert isinstance(unit, SharedBackbone)
    np.testing.assert_allclose(np.stack(unit.infer_each(shared.images)), shared.predictions, atol=1e-5)
    unit.close()
    with pytest.raises(EngineError, match="closed"):
        unit.infer_each(shared.images)


def test_the_backbone_is_exported_once_and_a_head_takes_features(shared: Shared) -> None:
    member = shared.members[0]
    path = backbone_file(shared.path(member), member)
    assert path == shared.folder / "backbones" / f"{member.backbone}.onnx"
    assert [p.name for p in sorted(path.parent.glob("*.onnx"))] == [path.name]
    backbone, head = onnx.load(str(path)).graph, onnx.load(str(shared.path(member))).graph
    assert [(v.name, v.type.tensor_type.shape.dim[1].dim_value) for v in backbone.output] == [("features", 6)]
    assert [(v.name, v.type.tensor_type.shape.dim[1].dim_value) for v in head.input] == [("features", 6)]
    assert head.output[0].name == "probabilities"


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("test_efficientnet", classification("abcd")),
        ("test_vit", Task("regression", (2,), ("x", "y"))),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_networks_of_timm_share_a_backbone(name: str, task: Task, tmp_path: Path) -> None:
    configuration = {"frozen": "all"} if name == "test_vit" else {"frozen": "all", "resolution": 48}
    options = {"family": f"timm:{name}", "configuration": configuration, "input": Input((40, 32, 3))}
    with shared_networks(tmp_path, heads=2, task=task, **options) as made:
        for backend in ("onnx", "torch"):
            models = [(made.path(member, FILES[backend]), member) for member in made.members]
            unit = backends.load_unit(backends.load, backend, models, CPU, 1)
            assert isinstance(unit, SharedBackbone)
            np.testing.assert_allclose(np.stack(unit.infer_each(made.images)), made.predictions, atol=1e-4)
            unit.close()


def test_what_was_loaded_of_a_unit_is_freed_when_a_head_is_absent(shared: Shared, tmp_path: Path) -> None:
    closed = []

    def load(backend, path, member, device, threads, part):
        loaded = backends.load(backend, path, member, device, threads, part=part)
        close = loaded.close
        loaded.close = lambda: (closed.append(part), close())
        return loaded

    models = [(shared.path(shared.members[0]), shared.members[0]), (tmp_path / "absent.onnx", shared.members[1])]
    with pytest.raises(LibraryError, match="does not exist"):
        backends.load_unit(load, "onnx", models, CPU, 1)
    assert closed == ["backbone", "head"]


@pytest.mark.parametrize("name", ["../../evil", "tiny", ""])
def test_a_backbone_that_is_no_id_names_no_file(shared: Shared, name: str) -> None:
    member = dataclasses.replace(shared.members[0], backbone=name)
    with pytest.raises(LibraryError, match="is no id of a backbone"):
        backbone_file(shared.path(member), member)


def test_a_merged_file_has_the_backbone_once_and_a_whole_file_predicts_alone(shared: Shared) -> None:
    member = shared.members[0]
    paths = {m.id: shared.path(m) for m in shared.members}
    backbone = backbone_file(shared.path(member), member)
    given = (member.input, member.task)
    merged = merge_onnx(paths, (1.0,) * 3, "mean", *given, {}, backbones=dict.fromkeys(paths, backbone))
    (predictions,) = open_file(merged)(shared.images)
    np.testing.assert_allclose(predictions, shared.predictions.mean(0), atol=1e-5)
    assert sum(node.op_type == "Conv" for node in onnx.load_from_string(merged).graph.node) == 1
    (alone,) = open_file(whole_onnx(backbone, paths[member.id], *given))(shared.images)
    np.testing.assert_allclose(alone, shared.predictions[0], atol=1e-5)
