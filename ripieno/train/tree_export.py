"""ONNX graphs of trees in a data set's own form: inputs are flattened and cast, predictions stand side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ripieno.data_kinds import is_series
from ripieno.errors import require
from ripieno.types import Input


@dataclass(frozen=True)
class TreeModel:
    """A converted model from `features` (batch, features), float32."""

    model: Any
    """an `onnx.ModelProto`"""
    output: int
    """position of the output with the predictions, (batch, columns)"""
    column: int | None
    """its one column that counts; None: all"""


def tree_graph(models: list[TreeModel], input: Input, outputs: int, preparation: Any = None) -> bytes:
    """Return an ONNX file from `images` (batch, *input.shape) of `input.dtype` to the predictions of all `models`.

    These are (batch, outputs) float32. Padding of series becomes 0, as in training. `preparation`, an
    `onnx.ModelProto`, makes the features that the models take; without it they are the flattened inputs.
    """
    onnx = require("onnx")
    compose, helper, types = require("onnx.compose"), onnx.helper, onnx.TensorProto
    dtype = types.UINT8 if input.dtype == "uint8" else types.FLOAT
    constants, parts, opsets = [], [], {"": 13}
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"], axis=1),
        helper.make_node("Cast", ["flat"], ["padded" if is_series(input) else "features"], to=types.FLOAT),
    ]
    if is_series(input):
        constants.append(helper.make_tensor("zero", types.FLOAT, [], [0.0]))
        nodes.append(helper.make_node("IsNaN", ["padded"], ["is_padding"]))
        nodes.append(helper.make_node("Where", ["is_padding", "zero", "padded"], ["features"]))
    features = "features"
    if preparation is not None:
        graph = compose.add_prefix(preparation, "preparation/").graph
        nodes.append(helper.make_node("Identity", [features], [graph.input[0].name]))
        nodes += graph.node
        constants += graph.initializer
        features = graph.output[0].name
    for index, part in enumerate(models):
        graph = compose.add_prefix(part.model, f"model{index}/").graph
        nodes.append(helper.make_node("Identity", [features], [graph.input[0].name]))
        nodes += graph.node
        constants += graph.initializer
        name = graph.output[part.output].name
        if part.column is not None:
            constants.append(helper.make_tensor(f"column{index}", types.INT64, [1], [part.column]))
            nodes.append(helper.make_node("Gather", [name, f"column{index}"], [f"part{index}"], axis=1))
            name = f"part{index}"
        parts.append(name)
    for model in [*(part.model for part in models), *([] if preparation is None else [preparation])]:
        for opset in model.opset_import:
            opsets[opset.domain] = max(opset.version, opsets.get(opset.domain, 1))
    nodes.append(helper.make_node("Concat", parts, ["predictions"], axis=1))
    shape = ["batch", *input.shape]
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("images", dtype, shape)],
        [helper.make_tensor_value_info("predictions", types.FLOAT, ["batch", outputs])],
        constants,
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = helper.make_model(graph, opset_imports=imports, ir_version=models[0].model.ir_version)
    content: bytes = model.SerializeToString()
    return content
