"""Members that compute nothing: the engine's own time remains. Worker processes import `load` by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Allocation, Bundle, Device, Ensemble, Input, Member, Placement, classification


class NullBackend:
    """Backend that answers every batch with a part of one constant array."""

    def __init__(self, classes: int) -> None:
        self._answers = np.full((4096, classes), 1 / classes, np.float32)

    def infer(self, images: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return uniform probabilities."""
        return self._answers[: len(images)]

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def load(backend: str, path: Path, member: Member, device: Device, threads: int) -> NullBackend:  # noqa: ARG001
    """Replace `ripieno.backends.load`."""
    return NullBackend(len(member.classes))


def bundle(members: int = 4, lanes: int = 2, batch_size: int = 64, classes: int = 100) -> Bundle:
    """Return a bundle of null members, all in every worker, for images of 32x32x3."""
    task = classification([f"c{i}" for i in range(classes)])
    null_members = tuple(
        Member(f"{i:05d}-e001", i, 1, "onnx", {}, Input((32, 32, 3)), task, {}, 0, 0.0) for i in range(members)
    )
    ids = tuple(member.id for member in null_members)
    ensemble = Ensemble("null", ids, (1 / members,) * members, "hand", {}, {}, {})
    places = tuple(Placement(m, "cpu:0", batch_size, lane) for lane in range(lanes) for m in ids)
    allocation = Allocation("null", "null", (Device("cpu:0", "cpu", 1 << 30),), places)
    return Bundle(ensemble, allocation, null_members, null_members[0].input, task, "onnx")
