"""Names of backends: `onnx`, `openvino:bf16`, `torch-compile:fp16`; the default precision is fp32.

onnx           ONNX Runtime: its own kernels on a CPU, its CUDA provider on a GPU
tensorrt       ONNX Runtime with its TensorRT provider, on a GPU
openvino       OpenVINO, on a CPU
torch          PyTorch, eager
torch-compile  PyTorch through torch.compile
torch-graphs   PyTorch replaying CUDA graphs, one per batch size, on a GPU
"""

from __future__ import annotations

from typing import Literal, cast

from ripieno.errors import EngineError

Name = Literal["onnx", "tensorrt", "openvino", "torch", "torch-compile", "torch-graphs"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "fp16", "int8"),
    "torch": ("fp32", "bf16", "fp16"),
    "torch-compile": ("fp32", "bf16", "fp16"),
    "torch-graphs": ("fp32", "bf16", "fp16"),
}
"""Precisions that each backend supports on some device."""
WEIGHTS, MODEL, HALF, QUANTISED = "weights.safetensors", "model.onnx", "model-fp16.onnx", "model-int8.onnx"


def split(backend: str) -> tuple[Name, Precision]:
    """Return name and precision of `backend`. Raises EngineError, listing the known names, for any other."""
    name, colon, suffix = backend.partition(":")
    precision = suffix if colon else "fp32"
    if name not in PRECISIONS:
        raise EngineError(f"unknown backend {name!r}; expected one of: {', '.join(PRECISIONS)}")
    if precision not in PRECISIONS[name]:
        raise EngineError(f"{name} cannot run in {precision!r}; expected one of: {', '.join(PRECISIONS[name])}")
    return cast(Name, name), precision


def join(name: str, precision: str) -> str:
    """Return the backend of a name and a precision. Raises EngineError as `split`."""
    split(f"{name}:{precision}")
    return name if precision == "fp32" else f"{name}:{precision}"


def file_of(backend: str) -> str:
    """Return the name of a member's file that `backend` runs. Raises EngineError as `split`."""
    name, precision = split(backend)
    if name.startswith("torch"):
        return WEIGHTS
    if precision == "int8":
        return QUANTISED
    # OpenVINO and TensorRT lower the precision of the whole network themselves
    return HALF if (name, precision) == ("onnx", "fp16") else MODEL


def module_of(backend: str) -> str:
    """Return the name of the module that `backend` needs. Raises EngineError as `split`."""
    name, _ = split(backend)
    return "torch" if name.startswith("torch") else "openvino" if name == "openvino" else "onnxruntime"
