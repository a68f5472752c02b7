"""Parts of a member that shares a frozen backbone with other members, and their files.

members/ID/model.onnx, weights.safetensors    the head: features (batch, features) float32 to predictions
backbones/BACKBONE_ID.onnx                    the backbone: inputs to features; exported once for all its members

In a run, the folder `members` is called `library`. A backbone in a lower precision has the suffix of the member's file:
`BACKBONE_ID-fp16.onnx` belongs to `model-fp16.onnx`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ripieno.backends.backend_id import MODEL, WEIGHTS
from ripieno.models.backbone_id import BACKBONES, backbone_path, parse_backbone_id
from ripieno.types import Input, Member

NetworkPart = Literal["whole", "backbone", "head"]
"""Part of a member's network that a backend runs: `whole` predicts from the inputs."""


def backbone_file(path: Path, member: Member) -> Path:
    """Return the path of the file of a member's backbone, present or not; `path` is the file of the member itself.

    Raises LibraryError when `member.backbone` is no id.
    """
    if path.name == WEIGHTS:
        return backbone_path(member.backbone, path)
    suffix = path.name.removeprefix(MODEL.removesuffix(".onnx"))
    return path.parent.parent.parent / BACKBONES / f"{parse_backbone_id(member.backbone)}{suffix}"


def parts_of(member: Member) -> dict[str, NetworkPart]:
    """Return the parts of a member that are measured apart, by the id of their profile: it, or backbone and head."""
    return {member.backbone: "backbone", member.id: "head"} if member.backbone else {member.id: "whole"}


def is_exported(path: Path, member: Member) -> bool:
    """Return whether the file at `path` exists, and that of the backbone if `member` shares one."""
    return path.exists() and (not member.backbone or backbone_file(path, member).exists())


def part_input(member: Member, part: NetworkPart, features: int) -> Input:
    """Return shape and type of one sample that a part takes; `features` is their number, used for a head only."""
    return Input((features,), "float32") if part == "head" else member.input


def part_output(member: Member, part: NetworkPart, features: int) -> tuple[int, ...]:
    """Return the shape of one sample that a part gives; `features` is their number, used for a backbone only."""
    return (features,) if part == "backbone" else member.task.output
