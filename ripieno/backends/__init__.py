"""Backends: members loaded for inference on a device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import ModuleType

from ripieno.backends.backend import Backend as Backend
from ripieno.backends.backend_id import module_of, split
from ripieno.backends.network_part import NetworkPart
from ripieno.backends.shared_backbone import SharedBackbone
from ripieno.errors import require
from ripieno.types import Device, Member


def runtime(backend: str) -> ModuleType:
    """Import the library of `backend`, without telemetry. Raises MissingExtraError, and as `split`."""
    from ripieno.backends.openvino import without_telemetry

    with without_telemetry():
        return require(module_of(backend))


def load(
    backend: str,
    path: Path,
    member: Member,
    device: Device,
    threads: int,
    trusted: Collection[str] = (),
    part: NetworkPart = "whole",
) -> Backend:
    """Load the file at `path` with `threads` compute threads; see `backend_id` for the names and files of backends.

    A member with a shared backbone needs the backbone's file too (`network_part.backbone_file`); `part` loads one of
    the two alone. `trusted` names the families (`module:function`) that the user allows the torch backends to import.
    Raises EngineError for an unknown backend, or one that cannot run on the device, MissingExtraError when its library
    is not installed.
    """
    name, precision = split(backend)
    if member.backbone and part == "whole":
        return load_unit(functools.partial(load, trusted=trusted), backend, [(path, member)], device, threads)
    if name == "openvino":
        from ripieno.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, member, device, threads, precision=precision, part=part)
    if name == "onnx" or name == "tensorrt":
        from ripieno.backends.onnx import OnnxBackend

        return OnnxBackend(path, member, device, threads, backend=name, precision=precision, part=part)
    from ripieno.backends.torch import TorchBackend

    return TorchBackend(path, member, device, threads, trusted=trusted, backend=name, precision=precision, part=part)


def load_unit(
    load: Callable[..., Backend],
    backend: str,
    models: Sequence[tuple[Path, Member]],
    device: Device,
    threads: int,
) -> Backend | SharedBackbone:
    """Load the members of one unit, as pairs of file and member, by `load`: one backbone with their heads, if any.

    Raises as `load`; what was loaded is then freed.
    """
    path, member = models[0]
    if not member.backbone:
        return load(backend, path, member, device, threads)
    parts: list[Backend] = []
    try:
        parts.append(load(backend, path, member, device, threads, part="backbone"))
        for path, member in models:
            parts.append(load(backend, path, member, device, threads, part="head"))
    except BaseException:
        for part in parts:
            part.close()
        raise
    return SharedBackbone(parts[0], parts[1:])
