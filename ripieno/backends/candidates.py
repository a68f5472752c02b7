"""Which backends `auto` tries on a device: those installed here that could be the best, the plainest first."""

from __future__ import annotations

import importlib.util
from typing import get_args

from ripieno.backends.backend_id import PRECISIONS, Name, Precision, join, module_of, split
from ripieno.errors import EngineError, require
from ripieno.types import Device

# On a processor PyTorch is never the quickest, and a lane that imports it is 180 MiB larger. Half precision in ONNX
# Runtime is emulated there; on a GPU its int8 is.
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
    """Backend and precision apart, either of which may be `auto`; `openvino:bf16` says both.

    Raises EngineError, listing what there is, for what there is not, and for two precisions.
    """
    if backend != "auto":
        name, own = split(backend)
        if ":" in backend and precision not in ("fp32", own):
            raise EngineError(f"{backend!r} is in {own}, not in {precision}: give one precision")
        backend, precision = name, own if ":" in backend else precision
        if precision != "auto":
            join(backend, precision)
    if precision not in (*get_args(Precision), "auto"):
        raise EngineError(f"no precision {precision!r}; there are: {', '.join(get_args(Precision))}, auto")
    return backend, precision


def candidates(device: Device, backend: str, precision: str) -> tuple[str, ...]:
    """Backends to try on `device` for `backend` and `precision`, either of which may be `auto`.

    A `precision` of its own comes with fp32, which stands in where a member loses too much. Raises EngineError for what
    there is not, and for a precision that nothing here can run in.
    """
    backend, precision = parse_backend(backend, precision)
    table = _TRIED[device.type]
    if backend == "auto":
        # what is not worth trying by itself is tried when it is asked for
        worth = {name: (*tried, *(p for p in PRECISIONS[name] if p == precision)) for name, tried in table.items()}
        known = {join(name, p) for name, tried in worth.items() for p in tried if _runs(name, p, device)}
    else:
        name, _ = split(backend)
        known = {join(name, p) for p in (table.get(name) if precision == "auto" else None) or PRECISIONS[name]}
    wanted = get_args(Precision) if precision == "auto" else ("fp32", precision)
    found = [one for p in dict.fromkeys(wanted) for name in get_args(Name) for one in [_named(name, p)] if one in known]
    if precision != "auto" and not any(split(one)[1] == precision for one in found):
        raise EngineError(f"nothing installed here runs in {precision} on {device.name}: use fp32 or auto")
    return tuple(found)


def _named(name: str, precision: str) -> str:
    return name if precision == "fp32" else f"{name}:{precision}"


def _runs(name: Name, precision: Precision, device: Device) -> bool:
    """Whether the backend is installed, and made for the device."""
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
