"""Backends that `auto` tries on a device: the installed ones that may be the fastest, the simplest first."""

from __future__ import annotations

import importlib.util
from typing import get_args

from ripieno.backends.backend_id import PRECISIONS, Name, Precision, join, module_of, split
from ripieno.errors import EngineError, require
from ripieno.types import Device

# On a CPU PyTorch is never the fastest, and a worker that imports it is 180 MiB larger. ONNX Runtime emulates half
# precision there; on a GPU it emulates int8.
_TRIED: dict[str, dict[Name, tuple[Precision, ...]]] = {
    "cpu": {"onnx": ("fp32", "int8"), "openvino": ("fp32", "bf16", "fp16", "int8")},
    "cuda": {
        "onnx": ("fp32", "fp16"),
        "tensorrt": ("fp32", "fp16", "int8"),
        "torch": ("fp32", "bf16", "fp16"),
        "torch-graphs": ("fp32", "bf16", "fp16"),
        "torch-compile": ("fp32", "bf16", "fp16"),
    },
}


def parse_backend(backend: str, precision: str = "fp32") -> tuple[str, str]:
    """Split a backend into name and precision, or `auto`. Raises EngineError for unknown or contrary values."""
    if backend != "auto":
        name, own = split(backend)
        if ":" in backend and precision not in ("fp32", own):
            raise EngineError(f"{backend!r} is in {own}, not in {precision}; pass one precision")
        backend, precision = name, own if ":" in backend else precision
        if precision != "auto":
            join(backend, precision)
    if precision not in (*get_args(Precision), "auto"):
        raise EngineError(f"unknown precision {precision!r}; expected one of: {', '.join(get_args(Precision))}, auto")
    return backend, precision


def candidates(device: Device, backend: str, precision: str) -> tuple[str, ...]:
    """Return the backends to try on `device` for `backend` and `precision`, either of which may be `auto`.

    A `precision` other than fp32 comes with fp32 as the fallback for members that lose too much accuracy. Raises
    EngineError for unknown values, and for a precision that no installed backend supports.
    """
    backend, precision = parse_backend(backend, precision)
    table = _TRIED[device.type]
    if backend == "auto":
        # a precision that is not worth trying by default is tried when it is requested
        worth = {name: (*tried, *(p for p in PRECISIONS[name] if p == precision)) for name, tried in table.items()}
        known = {join(name, p) for name, tried in worth.items() for p in tried if _runs(name, p, device)}
    else:
        name, _ = split(backend)
        known = {join(name, p) for p in (table.get(name) if precision == "auto" else None) or PRECISIONS[name]}
    wanted = get_args(Precision) if precision == "auto" else ("fp32", precision)
    pairs = [(name, p) for p in dict.fromkeys(wanted) for name in get_args(Name) if p in PRECISIONS[name]]
    found = [one for pair in pairs if (one := join(*pair)) in known]
    if precision != "auto" and not any(split(one)[1] == precision for one in found):
        raise EngineError(f"no installed backend runs in {precision} on {device.name}; use fp32 or auto")
    return tuple(found)


def _runs(name: Name, precision: Precision, device: Device) -> bool:
    module = module_of(name)
    if importlib.util.find_spec(module) is None:
        return False
    if module == "onnxruntime" and device.type == "cuda":
        provider = "TensorrtExecutionProvider" if name == "tensorrt" else "CUDAExecutionProvider"
        return provider in require(module).get_available_providers()
    if name == "openvino":
        from ripieno.backends.openvino import can

        return can(precision)
    return module != "torch" or bool(require("torch").cuda.is_available())
