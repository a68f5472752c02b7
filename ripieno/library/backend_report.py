"""The proof that members run by backends chosen for them still answer as they should; part of `bundle.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ripieno import files


@dataclass(frozen=True)
class BackendChoice:
    """How a member is run on a device, and its answers on validation images beside those of its fp32 reference."""

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
    """for a batch of that size with so many threads"""
    reference_seconds: float
    difference: float
    """the largest of a probability"""
    loss: float
    """validation cross-entropy"""
    reference_loss: float
    refused: Mapping[str, str] = field(default_factory=dict)
    """backends that were quicker or asked for, and why they were not taken"""


@dataclass(frozen=True)
class BackendReport:
    """What choosing backends did: to each member, and to the ensemble's validation figures, restated."""

    fits: tuple[BackendChoice, ...]
    samples: int
    """validation images that it was made on; none of them calibrated a network"""
    loss: float
    """the ensemble's cross-entropy, as its members are run"""
    reference_loss: float
    """the same as their references answer"""
    accuracy: float
    reference_accuracy: float


@dataclass(frozen=True)
class _Proven:
    proof: BackendReport | None = None


def read_proof(bundle: str | Path) -> BackendReport | None:
    """The proof in a bundle's folder; None when its backends were not chosen by measurement. Raises LibraryError."""
    return files.read_json(Path(bundle) / "bundle.json", _Proven).proof
