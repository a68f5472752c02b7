"""Adapter of foreign ONNX files to ripieno's form.

Members take `images` (batch, *shape), channels last, in the data set's dtype and give `probabilities` (batch, classes)
float32. A file with channels first, float or scaled pixels, or logits gets the missing nodes around its graph; the
graph itself is not changed. So does one of series that does not mask their padding: it gets 0 there. A file may also
take the columns of a table, each by its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.graph_part import GraphPart
from ripieno.backends.support import LABEL_OPSET, ML_DOMAIN
from ripieno.data.input_tensors import IMAGES
from ripieno.data_kinds import is_series, noun_of
from ripieno.errors import LibraryError, error_summary, require
from ripieno.library.onnx_columns import column_inputs, takes_columns
from ripieno.tasks.registry import kind_of
from ripieno.types import Input, Task
from ripieno.types import InputLayout as InputLayout
from ripieno.types import ModelOutputs as ModelOutputs

LARGEST = 2_000_000_000
"""Bytes of an ONNX file at most."""
INNER = "net/"
"""Prefix of every name in the file's own graph, which keeps it apart from the added names."""


@dataclass(frozen=True)
class OnnxFormat:
    """Input and output format of a network, as far as its file does not state it.

    Its input is `(images * scale - mean) / std`, the last two per channel.
    """

    layout: InputLayout = "auto"
    outputs: ModelOutputs = "probabilities"
    scale: float = 1.0
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    tensor: str = ""
    """name of the output with the predictions; empty: the only suitable one"""


class PredictionTensor(NamedTuple):
    """Output of a file with its predictions; those of pixels may be channels first, or smaller than the image."""

    name: str
    channels_first: bool = False
    """of pixels: (batch, classes, height, width)"""
    factor: int = 1
    """of pixels: by which the sides of the predictions are smaller than the image's"""


class OnnxNetwork:
    """An ONNX file that takes samples of `input`, read and checked."""

    def __init__(self, path: Path, input: Input, form: OnnxFormat) -> None:
        """Read the file at `path`.

        Raises LibraryError when it is no ONNX file, takes other than one input, or samples of another shape.
        """
        self._onnx = onnx = require("onnx")
        if not path.is_file():
            raise LibraryError(f"{path} does not exist")
        try:
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf's and the checker's errors have no narrower base class
            line = error_summary(error)
            raise LibraryError(f"{path} is not a readable ONNX file: {line[:200]}") from error
        weights = {w.name for w in model.graph.initializer}
        inputs = [i for i in model.graph.input if i.name not in weights]
        self._columns = inputs if takes_columns(inputs, input.columns) else []
        """the inputs of a file with one for each column of a table"""
        if len(inputs) != 1 and not self._columns:
            names = ", ".join(i.name for i in inputs)
            raise LibraryError(f"{path} takes {len(inputs)} inputs ({names}); expected one, the {noun_of(input)}")
        self.path, self._input, self._form = path, input, form
        self._model, self._graph_input = model, inputs[0]
        self._layout = "" if self._columns else _layout(path, inputs[0], input, form.layout)
        nodes = (*model.graph.node, *(node for function in model.functions for node in function.node))
        self.fills_padding = is_series(input) and not any(node.op_type == "IsNaN" for node in nodes)
        """whether the padding of series becomes 0, because the network does not test for NaN"""
        self.parameters = count_parameters(model)
        self.batch = int(inputs[0].type.tensor_type.shape.dim[0].dim_value)
        """the only batch size that the file accepts; 0: any"""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs."""
        return tuple(output.name for output in self._model.graph.output)

    def fed(self) -> bytes:
        """Return the file with its input nodes: takes `images`, gives all its own outputs in their order."""
        inner = self._onnx.compose.add_prefix(self._model, INNER)
        for output in inner.graph.output:
            if output.type.HasField("tensor_type"):
                output.type.tensor_type.ClearField("shape")  # the batch size in it may be wrong
        return self._wrap(inner, None, inner.graph.output)

    def adapted(self, output: PredictionTensor, task: Task) -> bytes:
        """Return the file in ripieno's form, with predictions of `task` made from its tensor `output`."""
        onnx, kind = self._onnx, kind_of(task)
        after = _NodeChain(onnx, INNER + output.name, "after")
        after.then("Cast", to=onnx.TensorProto.FLOAT)
        if output.channels_first:
            if output.factor > 1:
                after.enlarge(output.factor)
            after.then("Transpose", perm=[0, 2, 3, 1])
        name = kind.outputs[0]
        if self._form.outputs == "logits" and kind.activation == "softmax":
            after.then("Softmax", axis=len(task.output), out=name)
        else:
            after.then("Sigmoid" if self._form.outputs == "logits" else "Identity", out=name)
        shape = task.output if kind.is_pixelwise else (None,)
        predictions = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape])
        return self._wrap(onnx.compose.add_prefix(self._model, INNER), after, [predictions])

    def _wrap(self, inner: Any, after: _NodeChain | None, outputs: Sequence[Any]) -> bytes:
        """Wrap the graph `inner` in the missing nodes, and return the bytes of the file."""
        helper, graph = self._onnx.helper, inner.graph
        added = GraphPart([], []) if after is None else GraphPart(after.nodes, after.constants)
        before = self._before()
        images = helper.np_dtype_to_tensor_dtype(np.dtype(self._input.dtype))
        weights = {w.name for w in graph.initializer}
        whole = helper.make_graph(
            [*before.nodes, *graph.node, *added.nodes],
            "adapted",
            [
                helper.make_tensor_value_info(IMAGES, images, ["batch", *self._input.shape]),
                *(i for i in graph.input if i.name in weights),
            ],
            outputs,
            [*before.constants, *added.constants, *graph.initializer],
            sparse_initializer=list(graph.sparse_initializer),
        )
        opsets = {opset.domain: opset.version for opset in inner.opset_import}
        if self._columns:
            opsets[ML_DOMAIN] = max(LABEL_OPSET, opsets.get(ML_DOMAIN, 1))
        imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        wrapped = helper.make_model(whole, opset_imports=imports, functions=inner.functions)
        wrapped.ir_version = inner.ir_version
        if wrapped.ByteSize() > LARGEST:
            size = f"{wrapped.ByteSize()} bytes with its weights"
            raise LibraryError(f"{self.path} has {size}; at most {LARGEST} can be imported")
        content: bytes = wrapped.SerializeToString()
        return content

    def _before(self) -> GraphPart:
        """Build the nodes from `images` to the graph's inputs."""
        if not self._columns:
            return _before(self._onnx, self._graph_input, self._input, self._form, self._layout, self.fills_padding)
        if self._form.scale != 1.0 or self._form.mean or self._form.std:
            raise LibraryError(f"{self.path} takes the columns of the data; leave out scale, mean and std")
        return column_inputs(self.path, self._columns, self._input.columns, INNER)


def count_parameters(model: Any) -> int:
    """Count the numbers of a model's weights: in initializers and Constant nodes, also of subgraphs and functions.

    A tensor is a weight when it has an axis; 64-bit integers, booleans and strings are shapes, indices and masks.
    """
    kinds = require("onnx").TensorProto
    other = (kinds.INT64, kinds.BOOL, kinds.STRING)

    def of_tensor(tensor: Any) -> int:
        return int(np.prod(tensor.dims)) if tensor.dims and tensor.data_type not in other else 0

    def of_nodes(nodes: Any) -> int:
        total = 0
        for node in nodes:
            for attribute in node.attribute:
                if node.op_type == "Constant":
                    total += of_tensor(attribute.t) + of_tensor(attribute.sparse_tensor.values) + len(attribute.floats)
                total += sum(of_graph(graph) for graph in (attribute.g, *attribute.graphs))
        return total

    def of_graph(graph: Any) -> int:
        sparse = (s.values for s in graph.sparse_initializer)
        return sum(map(of_tensor, (*graph.initializer, *sparse))) + of_nodes(graph.node)

    return of_graph(model.graph) + sum(of_nodes(function.node) for function in model.functions)


def _layouts(input: Input) -> dict[str, tuple[int, ...]]:
    """Return the shape of one sample in each layout that a file can have, by the layout's name."""
    *place, channels = input.shape
    if len(place) == 2:
        return {"NHWC": input.shape, "NCHW": (channels, *place)}
    if len(place) == 1:
        alone = {"NL": tuple(place)} if channels == 1 else {}
        return {"NLC": input.shape, "NCL": (channels, *place)} | alone
    return {"NC": input.shape}


def _layout(path: Path, graph_input: Any, input: Input, asked: InputLayout) -> str:
    """Return the order of the axes, a key of `_layouts`: as requested, else by the shape in the file."""
    dims = [d.dim_value or None for d in graph_input.type.tensor_type.shape.dim]
    shapes, noun = _layouts(input), noun_of(input)
    if len(dims) - 1 not in {len(shape) for shape in shapes.values()}:
        axes = 1 + len(input.shape)
        raise LibraryError(f"{path} takes {graph_input.name} of {len(dims)} axes; {noun} have {axes}, batch first")
    fitting = [
        name
        for name, shape in shapes.items()
        if len(shape) == len(dims) - 1 and all(d is None or d == n for d, n in zip(dims[1:], shape, strict=True))
    ]
    if asked != "auto":
        fitting = [name for name in fitting if name == asked]
    if not fitting:
        taken = ", ".join("?" if d is None else str(d) for d in dims[1:])
        raise LibraryError(f"{path} takes {noun} ({taken}), but those of the library are {input.shape}, channels last")
    if len(fitting) == 2 and math.prod(input.shape[:-1]) != 1:
        raise LibraryError(
            f"cannot infer the layout of {path} from its input shape; pass --layout {' or '.join(fitting)}"
        )
    return fitting[0]


class _NodeChain:
    """Chain of nodes, each with the previous one's output as input."""

    def __init__(self, onnx: Any, start: str, name: str) -> None:
        self._onnx, self._name = onnx, name
        self.now = start
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def then(self, operator: str, constant: NDArray[Any] | None = None, out: str = "", **attributes: Any) -> None:
        """Add `operator`, with an optional second argument `constant`."""
        inputs = [self.now]
        if constant is not None:
            inputs.append(f"{self._name}/constant{len(self.constants)}")
            self.constants.append(self._onnx.numpy_helper.from_array(constant.astype(np.float32), inputs[1]))
        self.now = out or f"{self._name}/{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [self.now], **attributes))

    def enlarge(self, factor: int) -> None:
        """Make maps (batch, channels, height, width) `factor` times longer at both sides, bilinear."""
        scales = self._onnx.numpy_helper.from_array(
            np.array([1, 1, factor, factor], np.float32), f"{self._name}/scales"
        )
        self.constants.append(scales)
        maps, self.now = self.now, f"{self._name}/{len(self.nodes)}"
        made = self._onnx.helper.make_node("Resize", [maps, "", scales.name], [self.now], mode="linear")
        self.nodes.append(made)

    def fill_nan(self) -> None:
        """Replace NaN by 0."""
        values = self.now
        self.then("IsNaN")
        zero = self._onnx.numpy_helper.from_array(np.array(0, np.float32), f"{self._name}/zero")
        self.constants.append(zero)
        missing, self.now = self.now, f"{self._name}/{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node("Where", [missing, zero.name, values], [self.now]))


def _before(onnx: Any, graph_input: Any, input: Input, form: OnnxFormat, layout: str, fills_padding: bool) -> GraphPart:
    """Build the nodes from `images` to the graph's input."""
    kinds, channels = onnx.TensorProto, input.shape[-1]
    kind = graph_input.type.tensor_type.elem_type
    mean, std = np.array(form.mean or [0.0] * channels), np.array(form.std or [1.0] * channels)
    if len(mean) != channels or len(std) != channels or not (std > 0).all():
        raise LibraryError(
            f"mean and std have {len(mean)} and {len(std)} values; expected {channels} each, std above 0"
        )
    chain = _NodeChain(onnx, IMAGES, "before")
    if form.scale != 1.0 or mean.any() or (std != 1.0).any():
        chain.then("Cast", to=kinds.FLOAT)
        chain.then("Mul", form.scale / std)
        chain.then("Sub", mean / std)
    if fills_padding:
        chain.fill_nan()
    chain.then("Cast", to=kind)
    if layout in ("NCHW", "NCL"):
        axes = range(1, len(input.shape))
        chain.then("Transpose", perm=[0, len(input.shape), *axes])
    elif layout == "NL":
        chain.then("Flatten", axis=1)
    chain.then("Identity", out=INNER + graph_input.name)
    return GraphPart(chain.nodes, chain.constants)
