"""PyTorch backend: eager, the reference for all other backends; compiled; or replaying CUDA graphs."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.backend_id import Precision
from ripieno.backends.loaded_member import LoadedMember
from ripieno.backends.network_part import NetworkPart
from ripieno.backends.openvino import without_telemetry
from ripieno.backends.support import no_weights
from ripieno.errors import EngineError, LibraryError, error_summary, require
from ripieno.models.backbone_id import backbone_path
from ripieno.resources import sleep_while_waiting
from ripieno.tasks.registry import kind_of
from ripieno.types import Device, Member

GRAPHS = 8
"""Batch sizes with a CUDA graph per member, at most; other batches are padded to one of them, or run eagerly."""
WARM_UP = 3
"""Batches before a CUDA graph is recorded, as PyTorch requires."""
_recording = threading.Lock()
"""Lock for recording: PyTorch records one CUDA graph at a time in a process and must not release memory meanwhile."""


class TorchBackend(LoadedMember):
    """A member's weights run by PyTorch."""

    def __init__(
        self,
        path: Path,
        member: Member,
        device: Device,
        threads: int = 1,
        *,
        trusted: Collection[str] = (),
        backend: Literal["torch", "torch-compile", "torch-graphs"] = "torch",
        precision: Precision = "fp32",
        part: NetworkPart = "whole",
    ) -> None:
        """Build the member's network, or a `part` of it, on `device` with the weights at `path`.

        `precision` other than fp32 is autocast's. `trusted` names the user's families that may be imported. Raises
        LibraryError when the weights are absent or another network's, EngineError when the device is not available or
        the network cannot be compiled, ModelError for an untrusted family.
        """
        sleep_while_waiting()
        torch = self._torch = require("torch")
        from ripieno.models.activations import ACTIVATIONS
        from ripieno.models.parts import count_features, take_backbone, take_head

        self.threads = threads
        if device.type == "cuda" and not torch.cuda.is_available():
            raise EngineError(f"{device.name} is not available: this PyTorch sees no CUDA device; use cpu:0")
        if backend == "torch-graphs" and device.type != "cuda":
            raise EngineError(f"CUDA graphs cannot use {device.name}, because they run on GPUs only; use torch")
        self._device = device.name if device.type == "cuda" else "cpu"
        if device.type == "cuda" and precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False  # on by default, but less precise than fp32
        self._lowered = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        network = load_network(member, path, trusted)
        self._describe(member, part, 0 if part == "whole" else count_features(network))
        if part != "whole":
            network = take_backbone(network) if part == "backbone" else take_head(network)
        self._network: Any = network.to(self._device, memory_format=torch.channels_last)
        self._activate = ACTIVATIONS["identity" if part == "backbone" else kind_of(member.task).activation]
        self._graphs: dict[int, _Graph] | None = {} if backend == "torch-graphs" else None
        if backend == "torch-compile":
            self._compile()

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        torch = self._torch
        if torch.get_num_threads() != self.threads:  # set for the calling thread, the worker's own
            torch.set_num_threads(self.threads)
        with torch.inference_mode():
            # torch cannot wrap read-only memory
            batch = torch.from_numpy(images if images.flags.writeable else images.copy())
            run = self._predict if self._graphs is None else self._replay
            predictions: NDArray[np.float32] = run(batch.to(self._device)).cpu().numpy()
        return predictions

    def close(self) -> None:
        """Free the network and its GPU memory."""
        self._network = self._graphs = None
        if self._device != "cpu":
            # PyTorch caches freed GPU memory: the next member or measurement would see it as used
            with _recording, contextlib.suppress(RuntimeError):  # a failed GPU has no memory to release
                self._torch.cuda.empty_cache()

    def _predict(self, batch: Any) -> Any:
        torch = self._torch
        kind = self._device.partition(":")[0]
        with torch.autocast(kind, self._lowered, enabled=self._lowered is not None):
            return self._activate(self._network(batch).float())

    def _compile(self) -> None:
        """Compile for any batch now, so that a missing compiler is found before a worker's first request."""
        images = np.zeros((2, *self.input.shape), self.input.dtype)
        try:
            # the compiler loads plugins of installed packages, and emits warnings
            with without_telemetry(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._network = self._torch.compile(self._network, dynamic=True)
                for size in (2, 1):  # a batch of one is compiled separately
                    self.infer(images[:size])
        except Exception as error:  # compilers raise many types of errors
            reason = error_summary(error)[:200]
            raise EngineError(f"{self.member.id} cannot be compiled ({reason}); use the torch backend") from error

    def _replay(self, batch: Any) -> Any:
        assert self._graphs is not None
        size = len(batch)
        wide = 1 << (size - 1).bit_length()
        if wide not in self._graphs:
            if len(self._graphs) == GRAPHS:
                return self._predict(batch)
            self._graphs[wide] = _Graph(self._torch, self._predict, batch, wide)
        return self._graphs[wide].run(batch)


class _Graph:
    """CUDA graph of a network for one batch size: replaying it costs one launch."""

    def __init__(self, torch: Any, call: Any, batch: Any, size: int) -> None:
        self._torch = torch
        self._images = torch.zeros((size, *batch.shape[1:]), dtype=batch.dtype, device=batch.device)
        with _recording, torch.cuda.device(batch.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    call(self._images)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # PyTorch's own stream for this is on the GPU that recorded first: on another one it would record nothing.
            # Other workers may use the GPU from their threads meanwhile.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self._output = call(self._images)

    def run(self, batch: Any) -> Any:
        with self._torch.cuda.device(self._images.device):
            self._images[: len(batch)].copy_(batch)
            self._graph.replay()
        return self._output[: len(batch)]


def load_network(member: Member, path: Path, trusted: Collection[str] = ()) -> Any:
    """Load the network on the CPU to evaluate; a shared backbone's weights are read from their own file.

    Raises LibraryError for unfit weights, ModelError unless `trusted`.
    """
    require("torch")
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torch.nn import Module

    from ripieno.models.backbone_weights import BACKBONE_TENSORS, load_backbone
    from ripieno.models.build import build

    if member.format == "onnx":
        raise LibraryError(no_weights(member))
    network = build(member.family, member.configuration, member.input, member.task, trusted=trusted)
    try:
        tensors = load_file(path)
        if member.backbone:
            backbone = getattr(network.body, "backbone", None)
            if not isinstance(backbone, Module):
                raise LibraryError(f"{member.id} names a backbone, which {member.family} has not; train it again")
            load_backbone(backbone, backbone_path(member.backbone, path))
            tensors |= {name: t for name, t in network.state_dict().items() if name.startswith(BACKBONE_TENSORS)}
        network.load_state_dict(tensors)
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist; {member.id} has no weights") from error
    except (OSError, SafetensorError) as error:
        raise LibraryError(f"{path} is no readable safetensors file: {error}") from error
    except RuntimeError as error:
        raise LibraryError(f"{path} holds the weights of another network than {member.id}; train it again") from error
    return network.eval()
