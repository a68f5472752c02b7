"""OpenVINO backend: the fastest on most x86 CPUs, in bf16 where the CPU has it. No torch in the process."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.backend_id import Precision
from ripieno.backends.loaded_member import LoadedMember
from ripieno.backends.network_part import NetworkPart, backbone_file
from ripieno.errors import EngineError, LibraryError, error_summary, require
from ripieno.types import Device, Member

# an int8 file itself marks its int8 operators; the rest of the network stays in fp32
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
_NEEDED = {"bf16": "BF16", "fp16": "FP16"}
_lock = threading.Lock()
_cores: list[Any] = []


class OpenVinoBackend(LoadedMember):
    """A member's ONNX file run by OpenVINO on a CPU."""

    def __init__(
        self,
        path: Path,
        member: Member,
        device: Device,
        threads: int = 1,
        *,
        precision: Precision = "fp32",
        part: NetworkPart = "whole",
    ) -> None:
        """Load `path` with `threads` threads in one stream, which stay on the cores of the calling thread.

        The precision is always set explicitly, because OpenVINO may choose bf16 by default. Raises LibraryError when
        the file is absent or broken, EngineError when the device is no CPU or this one does not support `precision`.
        """
        core = _core()
        if device.type != "cpu":
            raise EngineError(f"OpenVINO cannot use {device.name}, because it runs on cpu:0 only; use onnx or torch")
        if precision in _NEEDED and not can(precision):
            raise EngineError(f"this processor has no instructions for {precision}; use fp32 or int8")
        path = backbone_file(path, member) if part == "backbone" else path
        if not path.exists():
            raise LibraryError(f"{path} does not exist; export {member.id} first")
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # a worker pins its own thread; OpenVINO would pin every worker to the first cores, at half the speed
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
            self._network: Any = compiled.create_infer_request()
        except Exception as error:  # its exceptions have no narrower base class
            raise LibraryError(f"{path} cannot be run by OpenVINO: {error_summary(error, line=-1)[:200]}") from error
        inner = compiled.input(0) if part == "head" else compiled.output(0)
        self._describe(member, part, inner.partial_shape[1].get_length() if part != "whole" else 0)
        self._tensor = _runtime().Tensor

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        # shared memory avoids a copy; a read-only array is copied, because OpenVINO requires a writeable one
        shared = images if images.flags.writeable else images.copy()
        self._network.set_input_tensor(self._tensor(shared, shared_memory=True))
        self._network.infer()
        # the next batch overwrites this one's output
        return np.array(self._network.get_output_tensor(0).data, np.float32)


def can(precision: str) -> bool:
    """Return whether OpenVINO computes in `precision` on this CPU without emulation."""
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"fp32": "FP32", "int8": "INT8", **_NEEDED}[precision] in capabilities


def _core() -> Any:
    """Return OpenVINO's core, one per process. Raises MissingExtraError when it is not installed."""
    with _lock:
        if not _cores:
            _cores.append(_runtime().Core())
        return _cores[0]


def _runtime() -> Any:
    with without_telemetry():
        return require("openvino")


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide the telemetry package from an import of OpenVINO in the block: the import would send usage data."""
    name = "openvino_telemetry"
    if "openvino" in sys.modules or name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(name, None)
