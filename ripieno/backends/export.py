"""Export of a trained member to ONNX, with a check against PyTorch's results.

The file takes `images` (batch, *input.shape) in the data set's dtype and gives `probabilities` or `values`
(batch, *task.output) float32: normalisation and activation are inside, the batch is dynamic.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.backends.difference import largest_difference
from ripieno.backends.network_part import backbone_file, part_input
from ripieno.backends.onnx import open_file
from ripieno.backends.quantise import quiet
from ripieno.backends.torch import load_network
from ripieno.data.input_tensors import IMAGES
from ripieno.data.pixels import random_images
from ripieno.data_kinds import is_series
from ripieno.errors import EngineError, error_summary, require
from ripieno.tasks.registry import kind_of
from ripieno.types import Input, Member, OutputActivation, Task

require("torch")  # a serving machine has none: report it in one line, not as a failed import
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from ripieno.models.build import Network  # noqa: E402
from ripieno.models.parts import FeatureExtractor, count_features, take_head  # noqa: E402

TOLERANCE = 1e-4
"""Largest allowed difference of a prediction of the exported network; see `difference.largest_difference`."""
FEATURES = "features"
"""Name of the input of a head."""


class _Predictions(nn.Module):
    """A network, or a head, with the activation of its task."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        predictions: Tensor = self.network.predict(inputs)  # type: ignore[operator]
        return predictions


@dataclass(frozen=True)
class _ExportGraph:
    """A module to export: the names of its tensors, the form of its input, and the activation of its outputs."""

    module: nn.Module
    input: Input
    names: tuple[str, str]
    activation: OutputActivation
    relative: bool = False
    """whether differences are divided by the largest of all values, as those of features"""
    moments: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    """mean and deviation of each channel of the inputs, by which noise is scaled; None: noise has the input's range"""

    def draw(self, count: int) -> Tensor:
        """Return random inputs of the module, (count, *input.shape)."""
        inputs = random_images(self.input, count)
        if self.moments is not None:
            mean, deviation = self.moments
            inputs = (inputs * deviation + mean).astype(np.float32)
        return torch.from_numpy(inputs)


def export_onnx(member: Member, weights: Path, target: Path, trusted: Collection[str] = ()) -> float:
    """Write the member with `weights` (`weights.safetensors`) to `target` as ONNX; return the largest difference.

    Of a member with a shared backbone, `target` gets the head, from `features` (batch, features) float32. Its backbone
    is written to its own file (`network_part.backbone_file`) unless that exists. The difference is of predictions on
    random inputs in batches of 1 and 5, by ONNX Runtime and by PyTorch. The tracing exporter is tried first (0.03 s for
    a small network), then torch.export (1 to 3 s), when the first fails or its graph differs by more than `TOLERANCE`.

    Raises EngineError when both fail, LibraryError for unfit weights, ModelError for a family not in `trusted`.
    """
    require("onnxscript")
    network = load_network(member, weights, trusted)
    output, activation = kind_of(member.task).outputs[0], kind_of(member.task).activation
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for small batches more threads only wait, on a busy machine up to 30 times longer
    try:
        if not member.backbone:
            # noise far from the scale of the training series would compare rounding errors of constant inputs
            moments = (network.mean.numpy(), network.std.numpy()) if is_series(member.input) else None
            whole = _ExportGraph(_Predictions(network), member.input, (IMAGES, output), activation, moments=moments)
            return _export(whole, member.id, target)
        features = part_input(member, "head", count_features(network))
        shared = backbone_file(target, member)
        if not shared.exists():
            export_backbone(network, member.input, member.backbone, shared)
        head = _Predictions(take_head(network))
        return _export(_ExportGraph(head, features, (FEATURES, output), activation), member.id, target)
    finally:
        torch.set_num_threads(threads)


def export_backbone(network: Network, input: Input, backbone: str, target: Path) -> float:
    """Write the backbone of `network`, of id `backbone`, to `target` as ONNX; return the largest difference, relative.

    The file takes `images` (batch, *input.shape) and gives `features` (batch, features) float32. Raises EngineError
    when that fails.
    """
    graph = _ExportGraph(FeatureExtractor(network), input, (IMAGES, FEATURES), "identity", True)
    return _export(graph, backbone, target)


def export_module(module: nn.Module, wanted: Input, task: Task, name: str, target: Path) -> float:
    """Write a module that predicts inputs as `task` says, of id `name`, to `target` as ONNX; return the difference.

    It is the largest one, relative to the values. Raises EngineError when that fails.
    """
    output = kind_of(task).outputs[0]
    return _export(_ExportGraph(module, wanted, (IMAGES, output), "identity", relative=True), name, target)


def _export(graph: _ExportGraph, name: str, target: Path) -> float:
    graph.module.eval()
    reasons = []
    for method in (_by_trace, _by_export):
        try:
            with quiet():
                content = method(graph, graph.draw(2))
            worst = _difference(content, graph)
        except Exception as error:  # the network's code may raise any exception
            reasons.append(error_summary(error, named=True))
            continue
        if worst <= TOLERANCE:
            files.write_bytes(target, content)
            return worst
        reasons.append(f"{graph.names[1]} differ by {worst:.1g}, at most {TOLERANCE:g} is allowed")
    raise EngineError(f"{name} cannot be exported to ONNX ({'; '.join(reasons)}); use the torch backend")


def _by_trace(graph: _ExportGraph, inputs: Tensor) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"dynamic_axes": {name: {0: "batch"} for name in graph.names}, **_names(graph)}
    torch.onnx.export(graph.module, (inputs,), buffer, dynamo=False, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _by_export(graph: _ExportGraph, inputs: Tensor) -> bytes:
    # by position: the forward methods name their argument as they like
    options: dict[str, Any] = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), **_names(graph)}
    program = torch.onnx.export(graph.module, (inputs,), dynamo=True, verbose=False, **options)
    assert program is not None, "torch.onnx.export returned no program"
    content: bytes = program.model_proto.SerializeToString()
    return content


def _names(graph: _ExportGraph) -> dict[str, Any]:
    given, found = graph.names
    return {"input_names": [given], "output_names": [found]}


def _difference(content: bytes, graph: _ExportGraph) -> float:
    """Return the largest difference of an output, in batches of 1 and of 5."""
    run = open_file(content)
    worst = 0.0
    for batch in (1, 5):
        inputs = graph.draw(batch)
        with torch.inference_mode():
            expected = graph.module(inputs).numpy()
        (outputs,) = run(inputs.numpy())
        if outputs.shape != expected.shape or not np.isfinite(outputs).all():
            return float("inf")
        if graph.relative:
            difference = float(np.abs(outputs - expected).max() / (np.abs(expected).max() or 1.0))
        else:
            difference = largest_difference(outputs, expected, graph.activation)
        worst = max(worst, difference)
    return worst
