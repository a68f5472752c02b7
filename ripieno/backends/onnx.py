"""ONNX Runtime backend: small, fast, no torch in the process; on a GPU by its CUDA or TensorRT provider."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.backend_id import Precision
from ripieno.backends.loaded_member import LoadedMember
from ripieno.backends.network_part import NetworkPart, backbone_file
from ripieno.errors import EngineError, LibraryError, error_summary, require
from ripieno.types import Device, Member


class OnnxBackend(LoadedMember):
    """A member's ONNX file run by ONNX Runtime."""

    def __init__(
        self,
        path: Path,
        member: Member,
        device: Device,
        threads: int = 1,
        *,
        backend: Literal["onnx", "tensorrt"] = "onnx",
        precision: Precision = "fp32",
        part: NetworkPart = "whole",
    ) -> None:
        """Load `path` on `device` with `threads` threads within an operator and one across operators.

        The file already has its precision, except that TensorRT lowers it itself. Raises LibraryError when the file is
        absent or broken, EngineError when this ONNX Runtime has no provider for the device, or one that cannot be
        loaded.
        """
        runtime = require("onnxruntime")
        path = backbone_file(path, member) if part == "backbone" else path
        if not path.exists():
            raise LibraryError(f"{path} does not exist; export {member.id} to ONNX first")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors only
        # threads that wait in a busy loop slow down sessions that share their cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if _share_arena():
            options.add_session_config_entry("session.use_env_allocators", "1")
        providers = _providers(runtime, device, backend, precision)
        if device.type == "cuda":
            _load_libraries(runtime)
        try:
            # no fallback: a member runs on its device or not at all
            self._network: Any = runtime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # its exceptions have no narrower base class
            raise LibraryError(f"{path} cannot be run by ONNX Runtime: {error_summary(error)}") from error
        if device.type == "cuda":
            _check_provider(self._network.get_providers()[0], device, backend)
        # ripieno's files use `images` and the kind's first output; an imported network may use other names
        given, found = self._network.get_inputs()[0], self._network.get_outputs()[0]
        self._names = given.name, [found.name]
        self._describe(member, part, (given if part == "head" else found).shape[-1] if part != "whole" else 0)

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        given, found = self._names
        predictions: NDArray[np.float32] = self._network.run(found, {given: images})[0]
        return predictions


def open_file(content: bytes, threads: int = 1) -> Callable[..., list[Any]]:
    """Return a function from the inputs of an ONNX file, in its order, to all of its outputs, on a CPU.

    Raises LibraryError for a broken file.
    """
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures are raised anyway
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no narrower base class
        raise LibraryError(f"cannot be run by ONNX Runtime: {error_summary(error)}") from error
    names = [given.name for given in session.get_inputs()]
    return lambda *inputs: list(session.run(None, dict(zip(names, inputs, strict=False))))


@cache
def _share_arena() -> bool:
    """Share one arena among all sessions of this process: members run in turn, so the largest activations suffice.

    With an arena each, eight sessions on batches of 64 hold 277 MiB, with one 148, at the same speed. False when
    this ONNX Runtime does not support it.
    """
    runtime = require("onnxruntime")
    try:
        kind, use = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, runtime.OrtMemType.DEFAULT
        runtime.create_and_register_allocator(runtime.OrtMemoryInfo("Cpu", kind, 0, use), None)
    except (AttributeError, RuntimeError):
        return False
    return True


def providers_of(device: Device, backend: str = "onnx") -> tuple[str, ...]:
    """Return the names of the providers that run a graph on `device`; the first runs most of it."""
    if device.type == "cpu":
        return ("CPUExecutionProvider",)
    cuda = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return ("TensorrtExecutionProvider", *cuda) if backend == "tensorrt" else cuda


def _providers(runtime: Any, device: Device, backend: str, precision: str) -> list[Any]:
    """Return the providers with their options. Raises EngineError naming the one that this ONNX Runtime lacks."""
    if backend == "tensorrt" and device.type == "cpu":
        raise EngineError(f"TensorRT cannot use {device.name}, because it runs on GPUs only; use onnx or openvino")
    wanted = providers_of(device, backend)
    available = runtime.get_available_providers()
    for name in wanted:
        if name not in available:
            remedy = "install onnxruntime-gpu" + (" and TensorRT" if name.startswith("Tensorrt") else "")
            raise EngineError(
                f"ONNX Runtime was built without {name} and cannot use {device.name}; "
                f"{remedy}, or use cpu:0 or the torch backend"
            )
    number = int(device.name.partition(":")[2] or 0)
    lowered = {"fp16": {"trt_fp16_enable": True}, "int8": {"trt_int8_enable": True}}.get(precision, {})
    options: dict[str, dict[str, Any]] = {
        "TensorrtExecutionProvider": {"device_id": number, **lowered},
        # TF32 would round fp32 values
        "CUDAExecutionProvider": {
            "device_id": number,
            "use_tf32": int(precision != "fp32"),
            # at most the memory of the device or of the worker; no doubling, or the measured members would not fit
            "gpu_mem_limit": device.memory,
            "arena_extend_strategy": "kSameAsRequested",
            # batches may have any size: an exhaustive algorithm search for each new size takes seconds
            "cudnn_conv_algo_search": "HEURISTIC",
        },
        "CPUExecutionProvider": {},
    }
    return [(name, options[name]) for name in wanted]


_loading = threading.Lock()


def _load_libraries(runtime: Any) -> None:
    """Load CUDA and cuDNN from pip's folders, if this ONNX Runtime can: it does not search there by default."""
    # it prints missing libraries to stdout, the stream of `--json`; worker threads must not redirect it concurrently
    with _loading, contextlib.redirect_stdout(sys.stderr):
        getattr(runtime, "preload_dlls", lambda: None)()


def _check_provider(got: str, device: Device, backend: str) -> None:
    """Raise EngineError when a session runs on another provider than that of `device`: ONNX Runtime only logs it."""
    wanted = providers_of(device, backend)[0]
    if got != wanted:
        names = "TensorRT" if backend == "tensorrt" else "CUDA and cuDNN"
        remedy = "install TensorRT" if backend == "tensorrt" else "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        raise EngineError(
            f"{device.name} cannot be used: the {names} libraries for this ONNX Runtime could not be loaded "
            f"(it would run on {got}, not {wanted}); {remedy}, or use the torch backend"
        )
