"""Residual networks of chosen sizes as ONNX files and bundles, with random weights: only their cost matters.

python benchmarks/engine/networks.py FOLDER     writes the four networks of the benchmarks and prints their sizes
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ripieno.types import Allocation, Bundle, Device, Ensemble, Input, Member, Placement, classification

SHAPE = (32, 32, 3)
CLASSES = 100


@dataclass(frozen=True)
class Size:
    """A residual network: `width` filters in the first of three stages (doubling), `blocks` blocks in each."""

    width: int
    blocks: int


FOUR = (Size(8, 2), Size(16, 1), Size(16, 3), Size(24, 3))
"""The ensemble of the benchmarks: multiply-adds from about 5 to 100 millions."""
TWELVE = tuple(Size(width, blocks) for width in (8, 12, 16) for blocks in (1, 2, 3, 4))


class _Graph:
    """Nodes and weights under construction."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.multiply_adds = 0
        self._dice = np.random.default_rng(seed)

    def constant(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: object) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def conv(self, data: str, size: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> str:
        """Add a convolution with output maps `size` wide, with bias (batch normalisation folded in)."""
        scale = np.sqrt(2 / (inputs * kernel * kernel))
        weights = self._dice.standard_normal((outputs, inputs, kernel, kernel)) * scale
        self.multiply_adds += outputs * inputs * kernel * kernel * size * size
        names = [data, self.constant(weights), self.constant(np.zeros(outputs))]
        return self.add("Conv", names, pads=[kernel // 2] * 4, strides=[stride, stride])


def write_network(path: Path, size: Size, index: int) -> tuple[Member, float]:
    """Write one network; return its member and its million multiply-adds per sample.

    Input is uint8 NHWC with a dynamic batch.
    """
    graph = _Graph(index)
    data = graph.add("Cast", ["images"], to=TensorProto.FLOAT)
    data = graph.add("Mul", [data, graph.constant(np.array(1 / 255))])
    data = graph.add("Transpose", [data], perm=[0, 3, 1, 2])
    side, channels = SHAPE[0], size.width
    data = graph.add("Relu", [graph.conv(data, side, SHAPE[2], channels)])
    for stage in range(3):
        for block in range(size.blocks):
            wide = size.width * 2**stage
            stride = 2 if stage and not block else 1
            side //= stride
            inner = graph.add("Relu", [graph.conv(data, side, channels, wide, stride=stride)])
            inner = graph.conv(inner, side, wide, wide)
            if stride > 1 or wide != channels:
                data = graph.conv(data, side, channels, wide, kernel=1, stride=stride)
            data = graph.add("Relu", [graph.add("Add", [inner, data])])
            channels = wide
    data = graph.add("Flatten", [graph.add("GlobalAveragePool", [data])])
    head = [graph.constant(np.random.default_rng(index).standard_normal((channels, CLASSES)) * 0.3)]
    data = graph.add("Gemm", [data, *head, graph.constant(np.zeros(CLASSES))])
    graph.add("Softmax", [data], "probabilities", axis=1)
    made = helper.make_graph(
        graph.nodes,
        f"network{index}",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", CLASSES])],
        graph.weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    parameters = sum(int(np.prod(w.dims)) for w in graph.weights)
    task = classification([f"class{i}" for i in range(CLASSES)])
    name = f"{index:05d}-e001"
    # a library needs the loss of every member: that of random answers
    losses = {"valid_cross_entropy": float(np.log(CLASSES))}
    member = Member(name, index, 1, "onnx", {}, Input(SHAPE), task, losses, parameters, 0.0, format="onnx")
    return member, graph.multiply_adds / 1e6


def write_members(folder: Path, sizes: Sequence[Size] = FOUR) -> tuple[list[Member], list[float]]:
    """Write networks as a bundle stores them; return the members and their million multiply-adds."""
    made = [write_network(folder / "members" / f"{i:05d}-e001" / "model.onnx", s, i) for i, s in enumerate(sizes)]
    return [member for member, _ in made], [cost for _, cost in made]


def lay_out(
    folder: Path, members: Sequence[Member], groups: Sequence[Sequence[int]], batch_size: int, cores: int
) -> Bundle:
    """Return a bundle of `members` with one worker per group of member indices, on `cores` pinned cores."""
    ids = tuple(member.id for member in members)
    ensemble = Ensemble("bench", ids, (1 / len(ids),) * len(ids), "hand", {}, {}, {})
    places = tuple(Placement(ids[m], "cpu:0", batch_size, lane) for lane, group in enumerate(groups) for m in group)
    device = Device("cpu:0", "cpu", 1 << 33, tuple(range(cores)))
    allocation = Allocation("bench", "bench", (device,), places)
    return Bundle(ensemble, allocation, tuple(members), members[0].input, members[0].task, "onnx", folder)


if __name__ == "__main__":
    for member, cost in zip(*write_members(Path(sys.argv[1])), strict=True):
        print(f"{member.id}  {member.parameters:9,} parameters  {cost:6.1f} million multiply-adds")
