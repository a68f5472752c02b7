"""Report on measured backend choices: accuracy of the chosen backends against the reference; part of `bundle.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ripieno import files


@dataclass(frozen=True)
class BackendChoice:
    """Backend of a member on a device, and its predictions on validation images compared with the fp32 reference."""

    member: str
    device: str
    """name of the device: `cpu:0`"""
    backend: str
    """such as `onnx` or `openvino:bf16`: see `ripieno.backends.backend_id`"""
    reference: str
    """`onnx`, or `torch` for a member without an ONNX file"""
    batch_size: int
    threads: int
    seconds: float
    """for a batch of that size with that many threads"""
    reference_seconds: float
    difference: float
    """largest difference of a probability"""
    loss: float
    """validation cross-entropy"""
    reference_loss: float
    refused: Mapping[str, str] = field(default_factory=dict)
    """backends that were faster or requested, and the reasons for their rejection"""


@dataclass(frozen=True)
class BackendReport:
    """Effect of the chosen backends: on each member, and on the ensemble's validation scores."""

    fits: tuple[BackendChoice, ...]
    samples: int
    """number of validation images used; none of them calibrated a network"""
    loss: float
    """the ensemble's cross-entropy with the chosen backends"""
    reference_loss: float
    """its cross-entropy with the reference backends"""
    accuracy: float
    reference_accuracy: float


@dataclass(frozen=True)
class _Proven:
    proof: BackendReport | None = None


def read_backend_report(bundle: str | Path) -> BackendReport | None:
    """Read a bundle's backend report; None when its backends were not chosen by measurement. Raises LibraryError."""
    return files.read_json(Path(bundle) / "bundle.json", _Proven).proof
