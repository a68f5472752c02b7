"""ONNX files that take the columns of a table, one input each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.library.import_models import import_onnx
from ripieno.library.onnx_adapter import OnnxFormat
from ripieno.types import Column, Dataset, Task

COLUMNS = (
    Column("started", "date", parts=("year", "month")),
    Column("age"),
    Column("job", "category", ("cook", "nurse")),
)
TASK = Task("regression", (1,), ("pay",))
FLOAT, TEXT = TensorProto.FLOAT, TensorProto.STRING


def data() -> Dataset:
    draw = np.random.default_rng(0)
    dates = np.stack([draw.integers(2000, 2010, 30), draw.integers(1, 12, 30)], axis=1)
    jobs = np.where(draw.random(30) < 0.2, np.nan, draw.integers(-1, 2, 30))
    inputs = np.column_stack([dates, draw.uniform(20, 60, 30), jobs]).astype(np.float32)
    targets = inputs[:, [2]]
    split = np.repeat(np.array([0, 1, 2], np.uint8), 10)
    return Dataset("pay", inputs, targets, split, TASK, (0.0,) * 4, (1.0,) * 4, kind="table", columns=COLUMNS)


def write_onnx(path: Path, kinds: dict[str, int], rank: int = 2) -> None:
    """Write age + 100 for a nurse, 7 for a missing or unseen job, for inputs of `kinds`."""
    shape = ["n", 1][:rank]
    encode = helper.make_node(
        "LabelEncoder", ["job"], ["extra"], domain="ai.onnx.ml", keys_strings=["cook", "nurse", ""],
        values_floats=[0.0, 100.0, 7.0], default_float=-1e6,
    )  # fmt: skip
    nodes = [helper.make_node("Reshape", ["age", "column"], ["years"])]
    if "job" in kinds:
        nodes += [encode] if kinds["job"] == TEXT else [helper.make_node("Identity", ["job"], ["extra"])]
        nodes += [helper.make_node("Reshape", ["extra", "column"], ["more"])]
        nodes += [helper.make_node("Add", ["years", "more"], ["y"])]
    else:
        nodes += [helper.make_node("Identity", ["years"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind in kinds.items()],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.array([-1, 1]), "column")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


@pytest.mark.parametrize("rank", [1, 2])
def test_a_file_gets_its_columns_by_name_and_in_its_order(tmp_path: Path, rank: int) -> None:
    write_onnx(tmp_path / "theirs.onnx", {"job": TEXT, "age": FLOAT}, rank)
    dataset, library = data(), Library(tmp_path / "run")
    import_onnx(library, [tmp_path / "theirs.onnx"], dataset)
    rows = dataset.inputs[dataset.rows("valid")]
    extra = np.where(rows[:, 3] == 1, 100.0, np.where(rows[:, 3] == 0, 0.0, 7.0))
    np.testing.assert_allclose(library.predictions("theirs")[:, 0], rows[:, 2] + extra, rtol=1e-5)


def test_a_file_of_text_with_an_older_set_of_operators_gets_the_one_it_needs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Equal", ["job", "nurse"], ["is-nurse"]),
        helper.make_node("Cast", ["is-nurse"], ["y"], to=FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("job", TEXT, ["n", 1])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 1])],
        [helper.make_tensor("nurse", TEXT, [1], [b"nurse"])],
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("ai.onnx.ml", 1)]  # whose labels are other ones
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    (tmp_path / "theirs.onnx").write_bytes(model.SerializeToString())
    dataset, library = data(), Library(tmp_path / "run")
    import_onnx(library, [tmp_path / "theirs.onnx"], dataset)
    jobs = dataset.inputs[dataset.rows("valid"), 3]
    np.testing.assert_array_equal(library.predictions("theirs")[:, 0], jobs == 1)


def test_a_file_with_one_of_the_columns_gets_that(tmp_path: Path) -> None:
    write_onnx(tmp_path / "theirs.onnx", {"age": FLOAT})
    dataset, library = data(), Library(tmp_path / "run")
    import_onnx(library, [tmp_path / "theirs.onnx"], dataset)
    np.testing.assert_allclose(library.predictions("theirs"), dataset.targets[dataset.rows("valid")], rtol=1e-6)


def test_the_matrix_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    dataset, library = data(), Library(tmp_path / "run")
    places = numpy_helper.from_array(np.array([2]), "place")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["age", "place"], ["y"], axis=1)],
        "theirs",
        [helper.make_tensor_value_info("age", FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 1])],
        [places],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "theirs.onnx").write_bytes(model.SerializeToString())
    import_onnx(library, [tmp_path / "theirs.onnx"], dataset)
    np.testing.assert_array_equal(library.predictions("theirs"), dataset.targets[dataset.rows("valid")])


@pytest.mark.parametrize(
    ("kinds", "form", "message"),
    [
        ({"age": FLOAT, "job": FLOAT}, OnnxFormat(), "takes 'job' as a number, but it is a category of the data"),
        ({"age": FLOAT, "started": FLOAT}, OnnxFormat(), "'started', but members get its year, month alone; import"),
        ({"age": FLOAT, "weight": FLOAT}, OnnxFormat(), r"takes 2 inputs \(age, weight\); expected one, the rows"),
        ({"age": FLOAT}, OnnxFormat(scale=2.0), "takes the columns of the data; leave out scale, mean and std"),
    ],
)
def test_other_inputs_are_one_line(tmp_path: Path, kinds: dict[str, int], form: Any, message: str) -> None:
    write_onnx(tmp_path / "theirs.onnx", kinds)
    with pytest.raises(LibraryError, match=message) as caught:
        import_onnx(Library(tmp_path / "run"), [tmp_path / "theirs.onnx"], data(), form=form)
    assert "\n" not in str(caught.value)
    onnx.checker.check_model(str(tmp_path / "theirs.onnx"))
