"""A member ready to run on a device."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import EngineError
from ripieno.types import Device, Member


class Backend(Protocol):
    """A loaded member. Not thread-safe: one lane owns it."""

    def infer(self, images: NDArray[np.generic]) -> NDArray[np.float32]:
        """Probabilities (batch, classes) of `images` (batch, *member.input.shape), of the member's dtype."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def load(
    backend: str, path: Path, member: Member, device: Device, threads: int, trusted: Collection[str] = ()
) -> Backend:
    """Load the file at `path` (`model.onnx` or `weights.safetensors`) with `threads` compute threads.

    `trusted` names the families (`module:function`) the user gave, which the torch backend may import. Raises
    EngineError for an unknown backend, MissingExtraError when its library is not installed.
    """
    if backend == "onnx":
        from ripieno.backends.onnx import OnnxBackend

        return OnnxBackend(path, member, device, threads)
    if backend == "torch":
        from ripieno.backends.torch import TorchBackend

        return TorchBackend(path, member, device, threads, trusted=trusted)
    raise EngineError(f"no backend {backend!r}; there are: onnx, torch")
