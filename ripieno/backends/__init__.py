"""Backends: members loaded for inference on a device."""

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
    """A loaded member. Not thread-safe: one worker owns it."""

    def infer(self, images: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return predictions (batch, *member.task.output) of `images` (batch, *member.input.shape), of its dtype."""
        ...

    def close(self) -> None:
        """Free its resources."""
        ...


def runtime(backend: str) -> ModuleType:
    """Import the library of `backend`, without telemetry. Raises MissingExtraError, and as `split`."""
    from ripieno.backends.openvino import without_telemetry

    with without_telemetry():
        return require(module_of(backend))


def load(
    backend: str, path: Path, member: Member, device: Device, threads: int, trusted: Collection[str] = ()
) -> Backend:
    """Load the file at `path` with `threads` compute threads; see `backend_id` for the names and files of backends.

    `trusted` names the families (`module:function`) that the user allows the torch backends to import. Raises
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
