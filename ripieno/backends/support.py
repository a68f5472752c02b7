"""Check that a backend can run the model of a member, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ripieno.backends.backend_id import WEIGHTS, file_of, split
from ripieno.errors import EngineError, require
from ripieno.types import Member

ML_DOMAIN = "ai.onnx.ml"
"""Domain of ONNX's operators of trees and other classical models."""
LABEL_OPSET = 2
"""Oldest operator set of `ML_DOMAIN` whose LabelEncoder maps text to numbers and back."""


def check_support(backend: str, member: Member, path: Path) -> None:
    """Raise EngineError when `backend` has no means to run `member`, whose ONNX file is at `path`.

    PyTorch needs weights, and OpenVINO has no operators of trees. Only ONNX files of trainers and of imports are looked
    at: ripieno's own networks run with every backend.
    """
    if member.format != "onnx":
        return
    if file_of(backend) == WEIGHTS:
        raise EngineError(no_weights(member))
    if split(backend)[0] == "openvino" and path.exists():
        model = require("onnx").load(str(path), load_external_data=False)
        if operators := ml_operators(model):
            raise EngineError(
                f"{member.id} has {operators[0]}, which OpenVINO cannot run: use --backend onnx, or auto, which "
                "chooses for each member"
            )


def no_weights(member: Member) -> str:
    """Return the message that PyTorch cannot run a member."""
    return f"{member.id} is an ONNX file without weights, which torch cannot run; use another backend"


def ml_operators(model: Any) -> list[str]:
    """Return the operators of trees and other classical models in an `onnx.ModelProto`, each once."""
    return list(dict.fromkeys(node.op_type for node in model.graph.node if node.domain == ML_DOMAIN))
