"""Floating-point operations of a network, counted in its ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ripieno.backends.onnx import open_file
from ripieno.errors import LibraryError, error_summary, require

UNCOUNTED = frozenset(
    (
        *("Attention", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "If", "Loop"),
        *("MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN", "Scan"),
    )
)
"""Standard operators with multiply-adds that are not counted."""
RECURRENT = ("LSTM", "GRU")
PRODUCTS = ("Conv", "Gemm", "MatMul", *RECURRENT)
"""Operators whose multiply-adds are counted."""


def onnx_flops(path: Path) -> float:
    """Count the floating-point operations of one sample: twice the multiply-adds.

    Those of convolutions, matrix products, and LSTM and GRU layers are counted. Other operations (normalisation,
    activations, pooling) are not, as is usual in published tables.
    Raises LibraryError when the graph's shapes cannot be inferred, and when it has operators whose operations are
    unknown: trees, which compare instead of multiplying, and those of `UNCOUNTED`.
    """
    onnx = require("onnx")
    try:
        model = onnx.load(str(path))
        foreign = [n.op_type for n in model.graph.node if n.domain not in ("", "ai.onnx") or n.op_type in UNCOUNTED]
        if foreign:
            raise LibraryError(f"{path}: the operations of {foreign[0]} cannot be counted")
        weights = {w.name: list(w.dims) for w in model.graph.initializer}
        for given in model.graph.input:
            if given.name not in weights:  # older files list their weights among the inputs
                given.type.tensor_type.shape.dim[0].dim_value = 1
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        shapes = {v.name: _dims(v) for v in values if v.type.tensor_type.HasField("shape")} | weights
        products = [node for node in graph.node if node.op_type in PRODUCTS]
        names = dict.fromkeys(name for node in products for name in (*node.input, *node.output))
        if unknown := [name for name in names if 0 in shapes.get(name, ())]:
            shapes |= _run_shapes(model, unknown)
        return 2.0 * sum(_multiply_adds(node, shapes) for node in graph.node)
    except LibraryError:
        raise
    except KeyError as error:
        raise LibraryError(f"{path}: the shape of {error} in this ONNX file cannot be inferred") from error
    except Exception as error:  # the errors of shape inference have no common base class
        line = error_summary(error)
        raise LibraryError(f"{path}: the shapes in this ONNX file cannot be inferred: {line[:200]}") from error


def _dims(value: Any) -> list[int]:
    """Return the axes of a tensor: 1 for an unknown first one, which is the batch, and 0 for another unknown one."""
    return [d.dim_value or int(place == 0) for place, d in enumerate(value.type.tensor_type.shape.dim)]


def _run_shapes(model: Any, names: Sequence[str]) -> dict[str, list[int]]:
    """Return the shapes of tensors of a graph, found by running it on one blank sample.

    Raises ValueError where an axis of an input, other than the batch, is unknown.
    """
    onnx = require("onnx")
    weights = {w.name for w in model.graph.initializer}
    blanks = []
    for given in model.graph.input:
        if given.name in weights:
            continue
        if 0 in (shape := _dims(given)):
            raise ValueError(f"its input {given.name} has no fixed shape")
        blanks.append(np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)))
    opened = type(model)()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    found = open_file(opened.SerializeToString())(*blanks)
    return {name: list(value.shape) for name, value in zip(names, found, strict=True)}


def _multiply_adds(node: Any, shapes: dict[str, list[int]]) -> float:
    if node.op_type == "Conv":
        # every output value is a sum over the filter's window and its group's channels
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type in RECURRENT:
        # each step multiplies the input and the state by matrices of all directions and gates
        steps = shapes[node.input[0]][0 if not _attribute(node, "layout") else 1]
        return steps * sum(math.prod(shapes[name]) for name in node.input[1:3])
    return 0.0


def _attribute(node: Any, name: str) -> int:
    """Return an attribute of a node that is a number; 0 without it."""
    return next((int(a.i) for a in node.attribute if a.name == name), 0)
