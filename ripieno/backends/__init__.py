"""A member ready to run on a device."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.backend_id import module_of, split
from ripieno.errors import require
from ripieno.types import Device, Member


class Backend(Protocol):
    """A loaded member. Not thread-safe: one lane owns it."""

    def infer(self, images: NDArray[np.generic]) -> NDArray[np.float32]:
        """Probabilities (batch, classes) of `images` (batch, *member.input.shape), of the member's dtype."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def runtime(backend: str) -> ModuleType:
    """The library that `backend` runs members by, imported; quietly. Raises MissingExtraError, and as `split`."""
    from ripieno.backends.openvino import without_telemetry

    with without_telemetry():
        return require(module_of(backend))


def load(
    backend: str, path: Path, member: Member, device: Device, threads: int, trusted: Collection[str] = ()
) -> Backend:
    """Load the file at `path` with `threads` compute threads; see `names` for what `backend` may be, and its file.

    `trusted` names the families (`module:function`) the user gave, which the torch backends may import. Raises
    EngineError for an unknown backend, or one that cannot run on the device, MissingExtraError when its library is not
    installed.
    """
    name, precision = split(backend)
    if name == "openvino":
        from ripieno.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, member, device, threads, precision=precision)
    if name == "onnx" or name == "tensorrt":
        from ripieno.backends.onnx import OnnxBackend

        return OnnxBackend(path, member, device, threads, backend=name, precision=precision)
    from ripieno.backends.torch import TorchBackend

    return TorchBackend(path, member, device, threads, trusted=trusted, backend=name, precision=precision)
