"""Part of an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


class GraphPart(NamedTuple):
    """Nodes of a graph, in topological order, and their constants."""

    nodes: list[NodeProto]
    constants: list[TensorProto]

    def append_to(self, model: ModelProto) -> None:
        """Append the nodes and constants to the graph of `model`."""
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.constants)
