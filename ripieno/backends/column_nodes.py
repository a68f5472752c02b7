"""ONNX nodes that encode the columns of a table, as `ripieno.data.table_encoding` does: raw values in, the matrix out.

Each column is an input of its own, (batch, 1): see `ripieno.data.input_tensors`. A graph has no text operators for all
of the encoding, so spaces around a category are not removed. Dates outside of the years 1 to 9999 are not refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.backends.graph_part import GraphPart
from ripieno.backends.support import ML_DOMAIN
from ripieno.data.column_values import MISSING
from ripieno.data.table_encoding import UNSEEN
from ripieno.errors import require
from ripieno.types import Column

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

PREFIX = "columns/"
"""Beginning of the names in the graph."""
MATRIX = f"{PREFIX}matrix"
"""Name of the tensor (batch, values) float32 of all columns."""
_WHOLE = re.compile(r"-?\d+")


def column_nodes(columns: Sequence[Column]) -> GraphPart:
    """Build the nodes from tensors named as `columns` to `MATRIX`, and their constants."""
    builder = _Builder()
    encoded = []
    for number, column in enumerate(columns):
        builder.prefix = f"{PREFIX}{number}/"
        if column.kind == "category":
            encoded.append(_category(builder, column))
        elif column.kind == "date":
            encoded.append(_date(builder, column))
        else:
            encoded.append(column.name)
    builder.prefix = PREFIX
    builder.node("Concat", encoded, "matrix", axis=1)
    return GraphPart(builder.nodes, builder.constants)


class _Builder:
    """Nodes and constants of a graph, whose names begin with `prefix`."""

    def __init__(self) -> None:
        self._onnx = require("onnx")
        self.prefix = ""
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._numbers: dict[float, str] = {}

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        made = self.prefix + name
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [made], made, **attributes))
        return made

    def number(self, value: float) -> str:
        """Return the name of a constant in double precision; equal ones are one tensor."""
        if value not in self._numbers:
            name = self._numbers[value] = f"{PREFIX}number{len(self._numbers)}"
            self.constants.append(self._onnx.numpy_helper.from_array(np.float64(value).reshape(1, 1), name))
        return self._numbers[value]


def _category(builder: _Builder, column: Column) -> str:
    """Add the index of a category: NaN for a missing one, `UNSEEN` for one without an index."""
    index = {category: float(i) for i, category in enumerate(column.categories)}
    spellings = {f"{category}.0": i for category, i in index.items() if _WHOLE.fullmatch(category)}
    codes = {**dict.fromkeys(sorted(MISSING), np.nan), **spellings, **index}
    return builder.node(
        "LabelEncoder", [column.name], "index", domain=ML_DOMAIN,
        keys_strings=list(codes), values_floats=list(codes.values()), default_float=float(UNSEEN),
    )  # fmt: skip


def _date(builder: _Builder, column: Column) -> str:
    """Add the parts of a date in days since 1970-01-01, as `table_encoding.date_parts`; NaN makes all of them NaN.

    Year, month and day are those of H. Hinnant's `civil_from_days`: years begin in March, so that a leap day is the
    last of its year, and 400 of them, an era, always have the same number of days.
    """
    number, days = builder.number, column.name

    def add(a: str, b: float | str, name: str) -> str:
        return builder.node("Add", [a, number(b) if isinstance(b, float) else b], name)

    def subtract(a: str, b: str, name: str) -> str:
        return builder.node("Sub", [a, b], name)

    def times(a: str, factor: float, name: str) -> str:
        return builder.node("Mul", [a, number(factor)], name)

    def quotient(a: str, divisor: float, name: str) -> str:
        return builder.node("Floor", [builder.node("Div", [a, number(divisor)], f"{name}-ratio")], name)

    def where_less(a: str, limit: float, then: str, otherwise: str, name: str) -> str:
        return builder.node("Where", [builder.node("Less", [a, number(limit)], f"{name}-test"), then, otherwise], name)

    whole = builder.node("Floor", [days], "whole")
    shifted = add(whole, 719468.0, "shifted")  # days since 1 March of year 0
    era = quotient(shifted, 146097.0, "era")
    of_era = subtract(shifted, times(era, 146097.0, "era-days"), "day-of-era")
    leap = subtract(quotient(of_era, 36524.0, "centuries"), quotient(of_era, 1460.0, "leap-days"), "leap-a")
    leap = subtract(leap, quotient(of_era, 146096.0, "era-end"), "leap-b")
    year_of_era = quotient(add(of_era, leap, "without-leap-days"), 365.0, "year-of-era")
    before = times(year_of_era, 365.0, "days-of-years")
    before = add(before, quotient(year_of_era, 4.0, "fourth-years"), "days-with-leap")
    before = subtract(before, quotient(year_of_era, 100.0, "hundredth-years"), "days-before")
    of_year = subtract(of_era, before, "day-of-year")
    month = quotient(add(times(of_year, 5.0, "fifths"), 2.0, "fifths-from"), 153.0, "month-from-march")
    begin = quotient(add(times(month, 153.0, "month-fifths"), 2.0, "month-fifths-from"), 5.0, "month-begin")
    is_spring = where_less(month, 10.0, number(0.0), number(1.0), "next-year")  # January and February: the year after
    week = add(whole, 3.0, "from-monday")  # 1970-01-01 is a Thursday
    found = {
        "year": add(add(times(era, 400.0, "era-years"), year_of_era, "march-year"), is_spring, "year"),
        "month": subtract(add(month, 3.0, "month-sum"), times(is_spring, 12.0, "months-back"), "month"),
        "day": add(subtract(of_year, begin, "day-from"), 1.0, "day"),
        "weekday": subtract(week, times(quotient(week, 7.0, "weeks"), 7.0, "week-days"), "weekday"),
        "hour": times(subtract(days, whole, "time"), 24.0, "hour"),
        "age": subtract(number(column.latest), days, "age"),
    }
    parts = builder.node("Concat", [found[part] for part in column.parts], "parts", axis=1)
    return builder.node("Cast", [parts], "date", to=int(require("onnx").TensorProto.FLOAT))
