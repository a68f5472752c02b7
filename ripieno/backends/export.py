"""Export of a trained member to ONNX, with a check against PyTorch's results.

The file takes `images` (batch, *input.shape) in the data set's dtype and gives `probabilities` or `values`
(batch, *task.output) float32: normalisation and activation are inside, the batch is dynamic.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from ripieno import files
from ripieno.backends.difference import largest_difference
from ripieno.backends.onnx import open_file
from ripieno.backends.quantise import quiet
from ripieno.backends.torch import load_network
from ripieno.data.pixels import random_images
from ripieno.errors import EngineError, error_summary, require
from ripieno.tasks.registry import kind_of
from ripieno.types import Member

require("torch")  # a serving machine has none: report it in one line, not as a failed import
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

TOLERANCE = 1e-4
"""Largest allowed difference of a prediction of the exported network; see `difference.largest_difference`."""


class _Predictions(nn.Module):
    """A network with the activation of its task."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        predictions: Tensor = self.network.predict(images)  # type: ignore[operator]
        return predictions


def export_onnx(member: Member, weights: Path, target: Path, trusted: Collection[str] = ()) -> float:
    """Write the member with `weights` (`weights.safetensors`) to `target` as ONNX; return the largest difference.

    The difference is of predictions on random images in batches of 1 and 5, by ONNX Runtime and by PyTorch. The
    tracing exporter is tried first (0.03 s for a small network), then torch.export (1 to 3 s), when the first fails or
    its graph differs by more than `TOLERANCE`.

    Raises EngineError when both fail, LibraryError for unfit weights, ModelError for a family not in `trusted`.
    """
    require("onnxscript")
    network = _Predictions(load_network(member, weights, trusted)).eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for small batches more threads only wait, on a busy machine up to 30 times longer
    try:
        return _export(network, member, target)
    finally:
        torch.set_num_threads(threads)


def _export(network: nn.Module, member: Member, target: Path) -> float:
    output = kind_of(member.task).outputs[0]
    reasons = []
    for method in (_by_trace, _by_export):
        try:
            with quiet():
                content = method(network, torch.from_numpy(random_images(member.input, 2)), output)
            worst = _difference(content, network, member)
        except Exception as error:  # the network's code may raise any exception
            reasons.append(error_summary(error, named=True))
            continue
        if worst <= TOLERANCE:
            files.write_bytes(target, content)
            return worst
        reasons.append(f"{output} differ by {worst:.1g}, at most {TOLERANCE:g} is allowed")
    raise EngineError(f"{member.id} cannot be exported to ONNX ({'; '.join(reasons)}); use the torch backend")


def _by_trace(network: nn.Module, images: Tensor, output: str) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"dynamic_axes": {"images": {0: "batch"}, output: {0: "batch"}}, **_names(output)}
    torch.onnx.export(network, (images,), buffer, dynamo=False, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _by_export(network: nn.Module, images: Tensor, output: str) -> bytes:
    options: dict[str, Any] = {"dynamic_shapes": {"images": {0: torch.export.Dim("batch")}}, **_names(output)}
    program = torch.onnx.export(network, (images,), dynamo=True, verbose=False, **options)
    assert program is not None, "torch.onnx.export returned no program"
    content: bytes = program.model_proto.SerializeToString()
    return content


def _names(output: str) -> dict[str, Any]:
    return {"input_names": ["images"], "output_names": [output]}


def _difference(content: bytes, network: Callable[[Tensor], Tensor], member: Member) -> float:
    """Return the largest difference of a prediction, in batches of 1 and of 5."""
    run = open_file(content)
    worst = 0.0
    for batch in (1, 5):
        images = torch.from_numpy(random_images(member.input, batch))
        with torch.inference_mode():
            expected = network(images).numpy()
        (predictions,) = run(images.numpy())
        if predictions.shape != expected.shape or not np.isfinite(predictions).all():
            return float("inf")
        worst = max(worst, largest_difference(predictions, expected, kind_of(member.task).activation))
    return worst
