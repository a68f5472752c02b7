"""Small ONNX networks for tests: what an exported member looks like, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ripieno.types import Column, Input, Member, Task

OUTPUTS = {
    "classification": ("Softmax", "class", "probabilities"),
    "multilabel": ("Sigmoid", "label", "probabilities"),
    "regression": ("Identity", "target", "values"),
}
"""By kind of task: the operator that gives the predictions, the beginning of their names, and the output's name."""


_SCALES = {"number": [0.02], "category": [0.5], "date": [0.001, 0.1, 0.1, 0.05, 0.0001]}
"""Factors of the values of a column, which make those of different units alike."""


def write_network(
    path: Path,
    *,
    name: str = "00000-e001",
    shape: tuple[int, int, int] = (8, 8, 3),
    dtype: str = "uint8",
    classes: int = 4,
    kind: str = "classification",
    filters: int = 8,
    layers: int = 1,
    seed: int = 0,
) -> Member:
    """Write a network of `layers` 3x3 convolutions of `filters` to `path` and return its member.

    Input `images` (batch, *shape) of `dtype`, output `probabilities` or `values` (batch, classes) float32; the batch is
    dynamic. `kind` is that of the task.
    """
    activation, prefix, output = OUTPUTS[kind]
    generator = np.random.default_rng(seed)
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", constant("scale", np.array(255.0))], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["map0"], perm=[0, 3, 1, 2]),
    ]
    channels = shape[2]
    for layer in range(layers):
        kernel = generator.standard_normal((filters, channels, 3, 3)) / np.sqrt(9 * channels)
        names = [f"map{layer}", constant(f"kernel{layer}", kernel)]
        nodes.append(helper.make_node("Conv", names, [f"conv{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [f"map{layer + 1}"]))
        channels = filters
    head = constant("head", generator.standard_normal((channels, classes)) * 4)
    bias = constant("bias", generator.standard_normal(classes))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"map{layers}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", head, bias], ["logits"]),
        helper.make_node(activation, ["logits"], [output]),
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", element, ["batch", *shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", classes])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return Member(
        id=name,
        trial=int(name.partition("-")[0]),
        epoch=1,
        family="onnx",
        configuration={},
        input=Input(shape, dtype),
        task=Task(kind, (classes,), tuple(f"{prefix}{i}" for i in range(classes))),
        losses={},
        parameters=sum(int(np.prod(w.dims)) for w in weights),
        seconds=0.0,
        format="onnx",
    )


def write_trees(path: Path, *, name: str = "00002-e001", shape: tuple[int, int, int] = (8, 8, 3)) -> Member:
    """Write a stump with an operator of trees, which splits by the first number of a sample, to `path`.

    Input and output are those of a classification of four by `write_network`, whose member it returns under `name`.
    """
    member = write_network(path, name=name, shape=shape)
    leaves = [0.1, 0.2, 0.3, 2.0, 1.0, 0.5, 0.25, 0.0]
    stump = helper.make_node(
        "TreeEnsembleRegressor", ["features"], ["scores"], domain="ai.onnx.ml", n_targets=4,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[127.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0] * 8, target_nodeids=[1] * 4 + [2] * 4, target_ids=[0, 1, 2, 3] * 2, target_weights=leaves,
    )  # fmt: skip
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["features"], to=TensorProto.FLOAT),
        stump,
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    before = onnx.load(str(path)).graph
    graph = helper.make_graph(nodes, "stump", before.input, before.output)
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return member


def write_table_network(
    path: Path, columns: tuple[Column, ...], *, name: str = "00000-e001", kind: str = "classification", seed: int = 0
) -> Member:
    """Write a linear model of a table with `columns` and four outputs to `path`, and return its member.

    It reads NaN as -1. A value of any column changes its predictions visibly.
    """
    activation, prefix, output = OUTPUTS[kind]
    generator = np.random.default_rng(seed)
    scales = np.concatenate([_SCALES[column.kind][: column.width] for column in columns])
    matrix = generator.standard_normal((len(scales), 4)) * scales[:, None]
    constants = {"unknown": np.array(-1.0), "matrix": matrix, "bias": generator.standard_normal(4)}
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["images"], ["missing"]),
            helper.make_node("Where", ["missing", "unknown", "images"], ["filled"]),
            helper.make_node("Gemm", ["filled", "matrix", "bias"], ["logits"]),
            helper.make_node(activation, ["logits"], [output]),
        ],
        "table",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", len(scales)])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value.astype(np.float32), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    task = Task(kind, (4,), tuple(f"{prefix}{i}" for i in range(4)))
    given = Input((len(scales),), "float32", columns=columns)
    return Member(name, int(name.partition("-")[0]), 1, "onnx", {}, given, task, {}, 0, 0.0, format="onnx")


def write_mask_network(
    path: Path,
    *,
    name: str = "00000-e001",
    shape: tuple[int, int, int] = (8, 12, 3),
    dtype: str = "uint8",
    classes: int = 4,
    kernel: int = 3,
    seed: int = 0,
) -> Member:
    """Write a network of one convolution of `kernel` x `kernel` for masks to `path`, and return its member.

    Input `images` (batch, *shape) of `dtype`, output `probabilities` (batch, height, width, classes) float32.
    """
    height, width, channels = shape
    generator = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(np.float32(255.0), "scale"),
        numpy_helper.from_array(generator.standard_normal((classes, channels, kernel, kernel)).astype("f4"), "kernel"),
        numpy_helper.from_array(generator.standard_normal(classes).astype(np.float32), "bias"),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["map"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["map", "kernel", "bias"], ["scores"], pads=[kernel // 2] * 4),
        helper.make_node("Transpose", ["scores"], ["logits"], perm=[0, 2, 3, 1]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    output = (height, width, classes)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "masks",
        [helper.make_tensor_value_info("images", element, ["batch", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", *output])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    task = Task("segmentation", output, tuple(f"class{i}" for i in range(classes)))
    return Member(
        name, int(name.partition("-")[0]), 1, "onnx", {}, Input(shape, dtype), task, {}, 0, 0.0, format="onnx"
    )


def write_foreign(path: Path, **options: Any) -> Member:
    """The same as `write_network`, with an operator in the middle that nobody here knows: its shapes cannot be told."""
    member = write_network(path, **options)
    model = onnx.load(str(path))
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Theirs", "somewhere.else"
    model.opset_import.append(helper.make_opsetid("somewhere.else", 1))
    path.write_bytes(model.SerializeToString())
    return member
