"""Somebody's ONNX file made to answer as ours do.

Ours take `images` (batch, height, width, channels) in the data set's dtype and give `probabilities` (batch, classes)
float32. A file that takes channels first, floats, scaled pixels, or gives logits gets the nodes that are missing around
it; the graph in between is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import LibraryError, first_line, need
from ripieno.types import Input

LARGEST = 2_000_000_000
"""Bytes one ONNX file can have."""
Layout = Literal["auto", "NHWC", "NCHW"]
Outputs = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Form:
    """What a network expects of images and gives, as far as its file cannot say.

    It is fed `(images * scale - mean) / std`, the last two per channel.
    """

    layout: Layout = "auto"
    outputs: Outputs = "probabilities"
    scale: float = 1.0
    mean: Sequence[float] = ()
    std: Sequence[float] = ()


def adapt_onnx(path: Path, input: Input, form: Form) -> tuple[bytes, int]:
    """The file at `path` as an ONNX file of our form for images of `input`, and its number of parameters.

    Raises LibraryError when it is no ONNX file, takes other than one image, or images of another shape.
    """
    onnx = need("onnx")
    if not path.is_file():
        raise LibraryError(f"{path} does not exist")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's errors have no common base but this
        line = first_line(error)
        raise LibraryError(f"{path} is not a readable ONNX file: {line[:200]}") from error
    weights = {w.name for w in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs)
        raise LibraryError(f"{path} takes {len(inputs)} inputs ({names}): it must take one, the images")
    layout = _layout(path, inputs[0], input, form.layout)
    parameters = sum(int(np.prod(w.dims)) for w in model.graph.initializer)
    adapted = _wrap(onnx, model, inputs[0], input, form, layout)
    if adapted.ByteSize() > LARGEST:
        raise LibraryError(f"{path} has {adapted.ByteSize()} bytes with its weights: at most {LARGEST} can be imported")
    return adapted.SerializeToString(), parameters


def _layout(path: Path, graph_input: Any, input: Input, asked: Layout) -> Layout:
    """Where the channels are: as asked, else by the shape in the file."""
    dims = [d.dim_value or None for d in graph_input.type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise LibraryError(f"{path} takes {graph_input.name} of {len(dims)} axes: images have four, batch first")
    height, width, channels = input.shape
    shapes: dict[Layout, tuple[int, ...]] = {"NHWC": (height, width, channels), "NCHW": (channels, height, width)}
    fitting = [k for k, s in shapes.items() if all(d is None or d == n for d, n in zip(dims[1:], s, strict=True))]
    if asked != "auto":
        fitting = [k for k in fitting if k == asked]
    if not fitting:
        taken = ", ".join("?" if d is None else str(d) for d in dims[1:])
        raise LibraryError(f"{path} takes images ({taken}): those of the library are {input.shape}, channels last")
    if len(fitting) == 2 and height * width != 1:
        raise LibraryError(f"{path} does not say where the channels are: give the layout, NHWC or NCHW")
    return fitting[0]


class _Chain:
    """Nodes one after the other, each fed by the one before."""

    def __init__(self, onnx: Any, start: str, name: str) -> None:
        self._onnx, self._name = onnx, name
        self.now = start
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def then(self, operator: str, constant: NDArray[Any] | None = None, out: str = "", **attributes: Any) -> None:
        """Add `operator`, with a second argument that is `constant`."""
        inputs = [self.now]
        if constant is not None:
            inputs.append(f"{self._name}/constant{len(self.constants)}")
            self.constants.append(self._onnx.numpy_helper.from_array(constant.astype(np.float32), inputs[1]))
        self.now = out or f"{self._name}/{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [self.now], **attributes))


def _wrap(onnx: Any, model: Any, graph_input: Any, input: Input, form: Form, layout: Layout) -> Any:
    """The model between the nodes that it lacks."""
    helper, kinds = onnx.helper, onnx.TensorProto
    inner = onnx.compose.add_prefix(model, "net/")
    graph = inner.graph
    before = _before(onnx, graph_input, input, form, layout)
    after = _Chain(onnx, graph.output[0].name, "after")
    after.then("Cast", to=kinds.FLOAT)
    if form.outputs == "logits":
        after.then("Softmax", axis=1, out="probabilities")
    else:
        after.then("Identity", out="probabilities")
    images = helper.np_dtype_to_tensor_dtype(np.dtype(input.dtype))
    weights = {w.name for w in graph.initializer}
    whole = helper.make_graph(
        [*before.nodes, *graph.node, *after.nodes],
        "adapted",
        [
            helper.make_tensor_value_info("images", images, ["batch", *input.shape]),
            *(i for i in graph.input if i.name in weights),
        ],
        [helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["batch", None])],
        [*before.constants, *graph.initializer],
        sparse_initializer=list(graph.sparse_initializer),
    )
    adapted = helper.make_model(whole, opset_imports=inner.opset_import, functions=inner.functions)
    adapted.ir_version = inner.ir_version
    return adapted


def _before(onnx: Any, graph_input: Any, input: Input, form: Form, layout: Layout) -> _Chain:
    """From `images` to what the graph takes."""
    kinds, channels = onnx.TensorProto, input.shape[-1]
    kind = graph_input.type.tensor_type.elem_type
    mean, std = np.array(form.mean or [0.0] * channels), np.array(form.std or [1.0] * channels)
    if len(mean) != channels or len(std) != channels or not (std > 0).all():
        raise LibraryError(f"mean and std have {len(mean)} and {len(std)} values: {channels} each, std above 0")
    chain = _Chain(onnx, "images", "before")
    if form.scale != 1.0 or mean.any() or (std != 1.0).any():
        chain.then("Cast", to=kinds.FLOAT)
        chain.then("Mul", form.scale / std)
        chain.then("Sub", mean / std)
    chain.then("Cast", to=kind)
    if layout == "NCHW":
        chain.then("Transpose", perm=[0, 3, 1, 2])
    chain.then("Identity", out=f"net/{graph_input.name}")
    return chain
