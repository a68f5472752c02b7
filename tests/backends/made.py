"""Members with weights on disk: real networks with norms updated on images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ripieno import files
from ripieno.backends.backend_id import HALF, QUANTISED, file_of
from ripieno.backends.export import export_onnx
from ripieno.backends.quantise import write_fp16, write_int8
from ripieno.models.build import build
from ripieno.train.checkpoint import weights_bytes
from ripieno.types import Configuration, Device, Input, Member, Task, classification

CPU = Device("cpu:0", "cpu", 1 << 30)
TINY = {"stem_filters": 4, "width": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1}


@dataclass(frozen=True)
class Made:
    """A member, its folder, and images for it."""

    member: Member
    folder: Path
    images: NDArray[np.generic]

    def path(self, backend: str) -> Path:
        """Return the file that `backend` runs, made on first use."""
        path = self.folder / file_of(backend)
        if not path.exists() and path.name == QUANTISED:
            write_int8(self.path("onnx"), path, self.images)
        if not path.exists() and path.name == HALF:
            write_fp16(self.path("onnx"), path)
        return path


def make(
    folder: Path,
    configuration: Configuration,
    input: Input,
    family: str = "resnet",
    export: bool = True,
    task: Task | None = None,
) -> Made:
    """Make a member of random weights with its files under `folder`; values are of thousands."""
    task = task or classification("abcde")
    generator = np.random.default_rng(0)
    images: NDArray[np.generic] = generator.integers(0, 256, (33, *input.shape), np.uint8)
    if input.dtype == "float32":
        images = (images / 255).astype(np.float32)
    channels = input.shape[-1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(family, configuration, input, task, (0.4,) * channels, (0.7,) * channels, [family])
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                elif isinstance(module, torch.nn.Linear):
                    module.weight.mul_(5)  # predictions far from uniform
            if task.kind == "regression":
                network.target_mean.fill_(4000)
                network.target_std.fill_(30)
            network(torch.from_numpy(images))
    member = Member(
        id="00001-e001",
        trial=1,
        epoch=1,
        family=family,
        configuration=configuration,
        input=input,
        task=task,
        losses={},
        parameters=1,
        seconds=1.0,
    )
    made = Made(member, folder, images)
    files.write_bytes(made.path("torch"), weights_bytes(network))
    if export:
        export_onnx(member, made.path("torch"), made.path("onnx"), trusted=[family])
    return made
