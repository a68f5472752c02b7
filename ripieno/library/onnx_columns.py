"""Nodes in front of a foreign ONNX file that takes the columns of a table, such as a pipeline of scikit-learn.

Members take the matrix of encoded values (see `ripieno.data.table_encoding`); the nodes give each column of it back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ripieno.backends.graph_part import GraphPart
from ripieno.backends.support import ML_DOMAIN
from ripieno.data.input_tensors import IMAGES
from ripieno.data.table_encoding import UNSEEN
from ripieno.errors import LibraryError, require
from ripieno.types import Column, column_places


def takes_columns(inputs: Sequence[Any], columns: Sequence[Column]) -> bool:
    """Return whether all `inputs` of a graph have names of columns, and one value a row as far as their shape says."""
    names = {column.name for column in columns}
    return bool(names) and all(given.name in names and _holds_one_value(given) for given in inputs)


def _holds_one_value(graph_input: Any) -> bool:
    sizes = [int(axis.dim_value) for axis in graph_input.type.tensor_type.shape.dim[1:]]
    return math.prod(sizes) <= 1  # 0: unknown


def column_inputs(path: Path, inputs: Sequence[Any], columns: Sequence[Column], prefix: str) -> GraphPart:
    """Build the nodes from `images` (batch, values) to the graph's `inputs`, whose names get `prefix`.

    A missing number is NaN; a missing or unseen category is empty text. Raises LibraryError for dates, of which members
    know the parts alone, and for another type than that of the column.
    """
    onnx = require("onnx")
    helper, kinds, to_tensor = onnx.helper, onnx.TensorProto, onnx.numpy_helper.from_array
    known = {column.name: (column, place) for column, place in column_places(columns)}
    nodes: list[Any] = []
    constants = [to_tensor(np.float32(UNSEEN), "columns/unseen"), to_tensor(np.array([-1]), "columns/flat")]
    for number, graph_input in enumerate(inputs):
        column, place = known[graph_input.name]
        tensor = graph_input.type.tensor_type
        if column.kind == "date":
            held = f"{path} takes the date {column.name!r}, but members get its {', '.join(column.parts)} alone"
            raise LibraryError(f"{held}; import its predictions instead")
        is_text = tensor.elem_type == kinds.STRING
        if is_text != (column.kind == "category"):
            held, wanted = ("text", "a number") if is_text else ("a number", "a category")
            raise LibraryError(f"{path} takes {column.name!r} as {held}, but it is {wanted} of the data")
        own = f"columns/{number}"
        constants.append(to_tensor(np.array([place.start]), f"{own}/place"))
        nodes.append(helper.make_node("Gather", [IMAGES, f"{own}/place"], [f"{own}/value"], axis=1))
        if is_text:
            nodes += [
                helper.make_node("IsNaN", [f"{own}/value"], [f"{own}/missing"]),
                helper.make_node("Where", [f"{own}/missing", "columns/unseen", f"{own}/value"], [f"{own}/known"]),
                helper.make_node("Cast", [f"{own}/known"], [f"{own}/index"], to=kinds.INT64),
                helper.make_node(
                    "LabelEncoder", [f"{own}/index"], [f"{own}/typed"], domain=ML_DOMAIN, default_string="",
                    keys_int64s=list(range(len(column.categories))), values_strings=list(column.categories),
                ),
            ]  # fmt: skip
        else:
            nodes.append(helper.make_node("Cast", [f"{own}/value"], [f"{own}/typed"], to=tensor.elem_type))
        has_one_axis = len(tensor.shape.dim) == 1
        shaped = ("Reshape", [f"{own}/typed", "columns/flat"]) if has_one_axis else ("Identity", [f"{own}/typed"])
        nodes.append(helper.make_node(*shaped, [prefix + graph_input.name]))
    return GraphPart(nodes, constants)
