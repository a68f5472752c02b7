"""Merged ONNX files combine members like the engine's combiner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ripieno.backends.merge_onnx import mean_onnx, merge_onnx
from ripieno.errors import LibraryError
from ripieno.tasks.action_rules import combine_actions
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.combiners import combine
from ripieno.tasks.registry import TASKS, kind_of
from ripieno.types import Column, Combiner, Ensemble, Input, Task, classification
from tests.onnx_networks import write_network, write_table_network, write_trees

SHAPE = (8, 8, 3)
TASK = classification(("a", "b", "c", "d"))
WEIGHTS = (0.5, 0.3, 0.2)


def answers(content: bytes, given: dict[str, np.ndarray], output: str = "probabilities") -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([output], given)[0])


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("members")
    found = {f"m{i}": folder / f"m{i}.onnx" for i in range(3)}
    for i, path in enumerate(found.values()):
        write_network(path, layers=1 + i, seed=i)
    return found


@pytest.mark.parametrize("combiner", TASKS["classification"].combiners)
@pytest.mark.parametrize("count", [2, 3])
def test_the_file_combines_as_the_engine_does(paths: dict[str, Path], combiner: Combiner, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, *SHAPE), np.uint8)
    chosen, weights = dict(list(paths.items())[:count]), np.asarray(WEIGHTS[:count], np.float32)
    each = np.stack([answers(p.read_bytes(), {"images": images}) for p in chosen.values()])
    wanted = combine(each, weights, combiner)
    content = merge_onnx(chosen, [float(w) for w in weights], combiner, Input(SHAPE), TASK, {})
    onnx.checker.check_model(content, full_check=True)
    assert np.abs(answers(content, {"images": images}) - wanted).max() < 1e-6
    apart = mean_onnx(list(chosen), [float(w) for w in weights], combiner, TASK)
    onnx.checker.check_model(apart, full_check=True)
    assert np.abs(answers(apart, dict(zip(chosen, each, strict=True))) - wanted).max() < 1e-6


def test_trees_and_networks_become_one_file_unless_their_operator_sets_differ(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    mixed = {**paths, "trees": tmp_path / "trees.onnx", "later": tmp_path / "later.onnx"}
    write_trees(mixed["trees"])
    images = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8)
    both = {name: mixed[name] for name in ("m1", "trees")}
    each = np.stack([answers(p.read_bytes(), {"images": images}) for p in both.values()])
    content = merge_onnx(both, (0.5, 0.5), "mean", Input(SHAPE), TASK, {})
    assert np.abs(answers(content, {"images": images}) - each.mean(0)).max() < 1e-6
    model = onnx.load(str(mixed["trees"]))
    model.opset_import[1].version = 5  # without the operators of older sets
    mixed["later"].write_bytes(model.SerializeToString())
    with pytest.raises(LibraryError, match=r"trees.onnx and .*later.onnx have operator sets 1 and 5 of ai.onnx.ml, .*"):
        merge_onnx(mixed, (0.2,) * 5, "mean", Input(SHAPE), TASK, {})


@pytest.mark.parametrize(
    ("kind", "output", "temperatures"),
    [
        ("multilabel", "probabilities", ((), 1.0)),
        ("multilabel", "probabilities", ((1.5, 0.4, 1.0), 0.7)),
        ("regression", "values", ((), 1.0)),
    ],
)
@pytest.mark.parametrize("combiner", ["mean", "weighted", "median"])
def test_the_file_combines_predictions_of_any_task(
    tmp_path: Path, kind: str, output: str, temperatures: tuple[tuple[float, ...], float], combiner: Combiner
) -> None:
    paths = {f"m{i}": tmp_path / f"m{i}.onnx" for i in range(3)}
    for i, path in enumerate(paths.values()):
        task = write_network(path, layers=1 + i, seed=i, kind=kind).task
    images = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8)
    each = np.stack([answers(p.read_bytes(), {"images": images}, output) for p in paths.values()])
    own = Ensemble("E", tuple(paths), WEIGHTS, "", {}, {}, {}, combiner, "", *temperatures)
    wanted = combine_calibrated(each, own, kind_of(task))
    for content, given in (
        (merge_onnx(paths, WEIGHTS, combiner, Input(SHAPE), task, {}, *temperatures), {"images": images}),
        (mean_onnx(list(paths), WEIGHTS, combiner, task, *temperatures), dict(zip(paths, each, strict=True))),
    ):
        onnx.checker.check_model(content, full_check=True)
        np.testing.assert_allclose(answers(content, given, output), wanted, rtol=1e-5, atol=1e-6)


POLICY = Task("policy", (3,), ("left", "stay", "right"), "return")


@pytest.mark.parametrize("combiner", ["vote", "probability", "value"])
def test_the_file_combines_policies_as_the_rules_do(combiner: Combiner) -> None:
    scale, names = np.float32([1.0, 300.0, 0.01])[:, None, None], ("a", "b", "c")
    each = np.random.default_rng(0).normal(size=(3, 50, 3)).astype(np.float32) * scale + 5 * scale
    each[1, 0] = 7.0  # a policy to which all actions are equal
    content = mean_onnx(names, WEIGHTS, combiner, POLICY)
    onnx.checker.check_model(content, full_check=True)
    found = answers(content, dict(zip(names, each, strict=True)), "values")
    np.testing.assert_allclose(found, combine_actions(combiner, each, WEIGHTS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_action_values_that_are_not_finite_are_not_hidden(spoilt: float) -> None:
    each = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    each[1, 2, 0] = spoilt
    content = mean_onnx(("a", "b"), (0.5, 0.5), "value", POLICY)
    found = answers(content, dict(zip(("a", "b"), each, strict=True)), "values")
    np.testing.assert_array_equal(np.isfinite(found).all(axis=1), [True, True, False, True])


@pytest.mark.parametrize("combiner", TASKS["classification"].combiners)
@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperatures", [((), 1.0), ((1.0, 1.5, 1.0), 1.0), ((), 0.7)])
def test_what_is_not_finite_is_not_hidden(
    combiner: Combiner, spoilt: float, temperatures: tuple[tuple[float, ...], float]
) -> None:
    each = np.random.default_rng(0).dirichlet([1, 1, 1], (3, 4)).astype(np.float32)
    names = ("a", "b", "c")
    task = classification(names)
    sound = answers(mean_onnx(names, WEIGHTS, combiner, task, *temperatures), dict(zip(names, each, strict=True)))
    each[1, 2, 0] = spoilt
    found = answers(mean_onnx(names, WEIGHTS, combiner, task, *temperatures), dict(zip(names, each, strict=True)))
    assert not np.isfinite(found[2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, axis=0), np.delete(sound, 2, axis=0))


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_labels_that_are_not_finite_are_not_hidden_by_a_temperature(spoilt: float) -> None:
    each = np.random.default_rng(0).random((2, 4, 3)).astype(np.float32)
    each[1, 2, 0] = spoilt
    content = mean_onnx(("a", "b"), (0.5, 0.5), "mean", Task("multilabel", (3,), ("a", "b", "c")), (1.5, 1.0), 0.7)
    found = answers(content, dict(zip(("a", "b"), each, strict=True)))
    assert not np.isfinite(found[2]).all()
    assert np.isfinite(np.delete(found, 2, axis=0)).all()


def test_members_of_two_operator_sets_are_joined(paths: dict[str, Path], tmp_path: Path) -> None:
    newer = onnx.version_converter.convert_version(onnx.load(str(paths["m1"])), 20)
    onnx.save(newer, str(tmp_path / "newer.onnx"))
    mixed = {"m0": paths["m0"], "m1": tmp_path / "newer.onnx"}
    content = merge_onnx(mixed, (0.5, 0.5), "mean", Input(SHAPE), TASK, {"classes": "[]"})
    model = onnx.load_from_string(content)
    assert [o.version for o in model.opset_import] == [20]
    assert {p.key: p.value for p in model.metadata_props} == {"classes": "[]"}
    images = np.random.default_rng(1).integers(0, 256, (7, *SHAPE), np.uint8)
    each = [answers(p.read_bytes(), {"images": images}) for p in mixed.values()]
    assert np.abs(answers(content, {"images": images}) - np.mean(each, axis=0)).max() < 1e-6


def test_a_broken_file_is_named(paths: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nonsense")
    broken = {"m0": paths["m0"], "m1": tmp_path / "broken.onnx"}
    with pytest.raises(LibraryError, match=r"broken.onnx cannot be read as ONNX"):
        merge_onnx(broken, (0.5, 0.5), "mean", Input(SHAPE), TASK, {})


def test_tied_votes_of_unequal_weights_are_tied_in_the_file(tmp_path: Path) -> None:
    """On a tie of 0.1 + 0.2 with 0.3 the lowest class wins, as in the engine and in selection."""
    input, task = Input((2, 2, 1), "float32"), classification(("a", "b"))
    paths = {}
    for name, best in (("m0", 1), ("m1", 1), ("m2", 0)):
        made = onnx.helper.make_graph(
            [
                onnx.helper.make_node("Flatten", ["images"], ["flat"], axis=1),
                onnx.helper.make_node("MatMul", ["flat", "zero"], ["none"]),
                onnx.helper.make_node("Add", ["none", "sure"], ["probabilities"]),
            ],
            "sure",
            [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 2, 2, 1])],
            [onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", 2])],
            [
                onnx.numpy_helper.from_array(np.zeros((4, 2), np.float32), "zero"),
                onnx.numpy_helper.from_array(np.eye(2, dtype=np.float32)[best], "sure"),
            ],
        )
        model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)])
        model.ir_version = 8
        paths[name] = tmp_path / f"{name}.onnx"
        onnx.save(model, str(paths[name]))
    content = merge_onnx(paths, (0.1, 0.2, 0.3), "vote", input, task, {})
    session = onnxruntime.InferenceSession(content)
    (answer,) = session.run(None, {"images": np.zeros((3, 2, 2, 1), np.float32)})
    assert (answer[:, 0] == answer[:, 1]).all()
    assert answer.dtype == np.float32


def test_columns_are_encoded_once_for_members_of_any_operator_set(tmp_path: Path) -> None:
    columns = (Column("age"), Column("plan", "category", ("a", "b")))
    paths = {f"m{i}": tmp_path / f"m{i}.onnx" for i in range(2)}
    for i, path in enumerate(paths.values()):
        member = write_table_network(path, columns, seed=i)
    matrix = np.array([[30, 1], [np.nan, -1]], np.float32)
    expected = np.mean([answers(path.read_bytes(), {"images": matrix}) for path in paths.values()], axis=0)
    raw = {"age": matrix[:, :1], "plan": np.array([["b"], ["z"]], object)}
    for version in (1, 3, 5):  # of the operators of trees, which a member may have
        model = onnx.load(str(paths["m1"]))
        del model.opset_import[1:]
        model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", version))
        paths["m1"].write_bytes(model.SerializeToString())
        content = merge_onnx(paths, (0.5, 0.5), "mean", member.input, member.task, {})
        onnx.checker.check_model(content, full_check=True)
        np.testing.assert_allclose(answers(content, raw), expected, rtol=1e-5)
        assert sum(node.op_type == "LabelEncoder" for node in onnx.load_from_string(content).graph.node) == 1


def test_prepared_trees_of_another_operator_set_are_joined(tmp_path: Path) -> None:
    columns = (Column("age"),)
    paths = {f"m{i}": tmp_path / f"m{i}.onnx" for i in range(2)}
    for i, path in enumerate(paths.values()):
        member = write_table_network(path, columns, seed=i)
    model, helper = onnx.load(str(paths["m1"])), onnx.helper
    domain = {"domain": "ai.onnx.ml"}
    prepared = [  # ONNX infers no type of what an Imputer gives
        helper.make_node("Imputer", ["images"], ["imputed"], imputed_value_floats=[2.0], **domain),
        helper.make_node("LabelEncoder", ["imputed"], ["code"], keys_floats=[2.0], values_floats=[5.0], **domain),
    ]
    rest = list(model.graph.node)
    rest[0].input[0] = rest[1].input[2] = "code"
    del model.graph.node[:], model.opset_import[:]
    model.graph.node.extend([*prepared, *rest])
    model.opset_import.extend([helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 2)])
    paths["m1"].write_bytes(model.SerializeToString())
    ages = np.array([[2], [np.nan], [7]], np.float32)
    expected = np.mean([answers(path.read_bytes(), {"images": ages}) for path in paths.values()], axis=0)
    content = merge_onnx(paths, (0.5, 0.5), "mean", member.input, member.task, {})
    np.testing.assert_allclose(answers(content, {"age": ages}), expected, rtol=1e-5)
