"""Members whose heads share one frozen backbone, on disk as in a run or in a bundle; their code is a user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from ripieno import files
from ripieno.backends.export import export_onnx
from ripieno.library.backbones import BackboneRecord
from ripieno.models.backbone_weights import BACKBONE_TENSORS
from ripieno.models.build import Network, build
from ripieno.types import (
    Allocation,
    Bundle,
    Configuration,
    Device,
    Ensemble,
    Input,
    Member,
    Placement,
    Task,
    classification,
)

FAMILY = "shared_family:tiny"
CODE = """
from torch import nn

class Tiny(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        layers = nn.Conv2d(channels, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, outputs))

    def features(self, x):
        return self.backbone(x)

    def forward(self, x):
        return self.head(self.features(x))

def tiny(configuration, input, outputs):
    return Tiny(input.shape[-1], outputs)
"""
INPUT = Input((9, 8, 3))
CPU = Device("cpu:0", "cpu", 1 << 30)


@dataclass(frozen=True)
class Shared:
    """Members that share a backbone, their folder, images, and what each predicts of them."""

    members: tuple[Member, ...]
    folder: Path
    home: str
    """folder of the members: `members` in a bundle, `library` in a run"""
    images: NDArray[np.generic]
    predictions: NDArray[np.float32]
    """(members, images, *output), by PyTorch, whole"""

    def path(self, member: Member, name: str = "model.onnx") -> Path:
        """Return the path of a member's file."""
        return self.folder / self.home / member.id / name


@contextmanager
def shared_networks(
    folder: Path,
    heads: int = 3,
    home: str = "members",
    task: Task | None = None,
    export: bool = True,
    family: str = FAMILY,
    configuration: Configuration | None = None,
    input: Input = INPUT,
) -> Iterator[Shared]:
    """Write `heads` members with one backbone; their code can be imported from this process while the block runs."""
    task, configuration = task or classification("abcd"), configuration or {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shared_family.py").write_text(CODE)
    images = np.random.default_rng(0).integers(0, 256, (30, *input.shape), np.uint8)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.syspath_prepend(str(folder))
        torch.manual_seed(0)
        network = build(family, configuration, input, task, (120.0,) * 3, (60.0,) * 3, [family])
        network.train()(torch.from_numpy(images))  # sets the statistics of the norm
        backbone = save(network.body.backbone.state_dict())
        record = BackboneRecord(family.partition(":")[2], "made here", "", hashlib.sha256(backbone).hexdigest())
        files.write_bytes(folder / "backbones" / f"{record.stem}.safetensors", backbone)
        files.write_json(folder / "backbones" / f"{record.stem}.json", record)
        members, predictions = [], []
        for number in range(heads):
            torch.nn.init.normal_(network.body.head[1].weight)  # type: ignore[index, arg-type]
            name, shared = f"{number:05d}-e001", f"{record.stem}-8"
            member = Member(name, number, 1, family, configuration, input, task, {}, 40, 1.0, backbone=shared)
            files.write_bytes(folder / home / name / "weights.safetensors", head_bytes(network))
            if export:
                path = folder / home / name
                export_onnx(member, path / "weights.safetensors", path / "model.onnx", [family])
            with torch.inference_mode():
                predictions.append(network.eval().predict(torch.from_numpy(images)).numpy())
            members.append(member)
        yield Shared(tuple(members), folder, home, images, np.stack(predictions))


def head_bytes(network: Network) -> bytes:
    """Return what `weights.safetensors` holds of a member that shares its backbone."""
    return save(
        {name: t.contiguous() for name, t in network.state_dict().items() if not name.startswith(BACKBONE_TENSORS)}
    )


def shared_bundle(shared: Shared, lanes: int = 1, backend: str = "onnx", batch_size: int = 4) -> Bundle:
    """Write the bundle of all members, each in every worker."""
    names = tuple(member.id for member in shared.members)
    ensemble = Ensemble("heads", names, (1 / len(names),) * len(names), "hand", {}, {}, {})
    places = tuple(Placement(name, CPU.name, batch_size, lane) for lane in range(lanes) for name in names)
    allocation = Allocation("heads", "heads", (CPU,), places)
    member = shared.members[0]
    bundle = Bundle(ensemble, allocation, shared.members, member.input, member.task, backend)
    files.write_json(shared.folder / "bundle.json", bundle)
    return bundle
