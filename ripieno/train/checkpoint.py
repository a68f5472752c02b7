"""Checkpoint of a trial's last finished epoch: weights, optimiser state and curve, in one safetensors file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.types import Configuration, Dataset, Epoch

_WEIGHTS, _STATE = "weights.", "optimizer."
_KEY = "ripieno"


@dataclass(frozen=True)
class TrainingState:
    """Progress of a trial; `trial` is its fingerprint, so that a checkpoint of another trial is not resumed."""

    trial: str
    epoch: int = 0
    seconds: float = 0.0
    curve: tuple[Epoch, ...] = ()


def fingerprint(seed: int, trial: int, family: str, configuration: Configuration, dataset: Dataset) -> str:
    """Hash everything that determines a trial's weights."""
    data = [dataset.name, dataset.inputs.shape, str(dataset.inputs.dtype), dataset.classes, dataset.mean, dataset.std]
    if dataset.task.kind != "classification":
        data.append(dataset.task.kind)
    # the version is a part of the hash: it stays 1, so that checkpoints of version 1 are resumed
    content = files.to_json([seed, trial, family, dict(sorted(configuration.items())), data], version=1)
    return hashlib.sha256(content).hexdigest()


def weights_bytes(network: nn.Module) -> bytes:
    """Serialise the network's weights and buffers in the safetensors format."""
    return save(_to_serialisable(network.state_dict()))


def write_checkpoint(path: Path, progress: TrainingState, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint atomically."""
    tensors = {_WEIGHTS + name: tensor for name, tensor in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_STATE}{index}.{name}": t for name, t in state.items() if isinstance(t, Tensor)}
    files.write_bytes(path, save(_to_serialisable(tensors), {_KEY: files.to_json(progress).decode()}))


def read_checkpoint(
    path: Path, trial: str, last: int, network: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Restore `network` and `optimizer` from a checkpoint of `trial` at epoch `last` or before; return its progress.

    A checkpoint that is absent, broken, of another trial, or of a later epoch is ignored: both stay unchanged, and the
    progress is that of epoch 0.
    """
    initial = TrainingState(trial)
    try:
        with safe_open(path, framework="pt") as stream:
            progress = files.from_json((stream.metadata() or {})[_KEY], TrainingState, path)
            if progress.trial != trial or progress.epoch > last:
                return initial
            # safetensors' stubs have no type here
            tensors: dict[str, Tensor] = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, KeyError, SafetensorError, LibraryError):
        return initial
    weights = {name.removeprefix(_WEIGHTS): t for name, t in tensors.items() if name.startswith(_WEIGHTS)}
    current = network.state_dict()
    if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in current.items()}:
        return initial
    network.load_state_dict(weights)
    _restore(optimizer, {n.removeprefix(_STATE): t for n, t in tensors.items() if n.startswith(_STATE)})
    return progress


def _restore(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # fused kernels iterate over memory: a state must have its parameter's memory format (channels-last or not)
            tensor = torch.empty_like(parameter).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _to_serialisable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert tensors to the form that safetensors requires: on the CPU, contiguous, without shared memory.

    The weights of a module that a network uses twice are in the state under two names. Both are written, so that the
    network that reads them finds all its names.
    """
    converted: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        on_cpu = tensor.detach().to("cpu").contiguous()
        memory = on_cpu.untyped_storage().data_ptr()
        converted[name] = on_cpu.clone() if memory in seen else on_cpu
        seen.add(memory)
    return converted
