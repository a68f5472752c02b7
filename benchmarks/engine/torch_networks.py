"""The networks of `networks.py` as PyTorch modules with the same weights: family `torch_networks:residual`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ripieno import files

FAMILY = "torch_networks:residual"


class Residual(nn.Module):
    """Convolutions in the order in which the generator makes them."""

    def __init__(self, width: int, blocks: int, channels: int, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(channels, width, 3, 1, 1)])
        self.strides: list[tuple[int, bool]] = []
        inputs = width
        for stage in range(3):
            for block in range(blocks):
                wide, stride = width * 2**stage, 2 if stage and not block else 1
                short = stride > 1 or wide != inputs
                self.strides.append((stride, short))
                self.convolutions += [nn.Conv2d(inputs, wide, 3, stride, 1), nn.Conv2d(wide, wide, 3, 1, 1)]
                if short:
                    self.convolutions.append(nn.Conv2d(inputs, wide, 1, stride))
                inputs = wide
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of normalised NCHW images."""
        layers = iter(self.convolutions)
        data = torch.relu(next(layers)(images))
        for _, short in self.strides:
            inner = torch.relu(next(layers)(data))
            inner = next(layers)(inner)
            data = torch.relu(inner + (next(layers)(data) if short else data))
        return self.head(data.mean((2, 3)))


def residual(configuration: dict[str, int], input: object, classes: int) -> Residual:
    """Build the network: the family's function."""
    return Residual(configuration["width"], configuration["blocks"], input.shape[-1], classes)


def write_weights(model: Path, target: Path) -> None:
    """Write the weights of a generated ONNX file as the module's weights, normalised as there."""
    from safetensors.torch import save

    graph = onnx.load(model).graph
    arrays = [numpy_helper.to_array(w) for w in graph.initializer][1:]  # the first is the scale of the images
    *convolutions, head, bias = arrays
    tensors = {"mean": torch.zeros(3), "std": torch.full((3,), 255.0)}
    for index, (weights, biases) in enumerate(zip(convolutions[::2], convolutions[1::2], strict=True)):
        tensors[f"body.convolutions.{index}.weight"] = torch.from_numpy(weights.copy())
        tensors[f"body.convolutions.{index}.bias"] = torch.from_numpy(biases.copy())
    tensors["body.head.weight"] = torch.from_numpy(np.ascontiguousarray(head.T))
    tensors["body.head.bias"] = torch.from_numpy(bias.copy())
    files.write_bytes(target, save(tensors))
