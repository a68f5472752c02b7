"""A trial's last finished epoch: weights, optimiser state and what was learnt so far, in one safetensors file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ripieno import files
from ripieno.types import Configuration, Dataset, Epoch

_WEIGHTS, _STATE = "weights.", "optimizer."
_KEY = "ripieno"


@dataclass(frozen=True)
class TrainingState:
    """How far a trial has come; `trial` is its fingerprint: a checkpoint of another trial is not gone on with."""

    trial: str
    epoch: int = 0
    seconds: float = 0.0
    curve: tuple[Epoch, ...] = ()


def fingerprint(seed: int, trial: int, family: str, configuration: Configuration, dataset: Dataset) -> str:
    """What a trial's weights depend on, hashed."""
    data = [dataset.name, dataset.images.shape, str(dataset.images.dtype), dataset.classes, dataset.mean, dataset.std]
    word = files.to_json([seed, trial, family, dict(sorted(configuration.items())), data])
    return hashlib.sha256(word).hexdigest()


def weights_bytes(network: nn.Module) -> bytes:
    """The network's weights and buffers as the content of a safetensors file."""
    return save(_plain(network.state_dict()))


def write_checkpoint(path: Path, progress: TrainingState, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint atomically."""
    tensors = {_WEIGHTS + name: tensor for name, tensor in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_STATE}{index}.{name}": t for name, t in state.items() if isinstance(t, Tensor)}
    files.write_bytes(path, save(_plain(tensors), {_KEY: files.to_json(progress).decode()}))


def read_checkpoint(
    path: Path, trial: str, last: int, network: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Restore `network` and `optimizer` from a checkpoint of `trial` at most `last` epochs far.

    A checkpoint that is absent, broken, of another trial, or too far is passed over: they stay as they are and the
    progress is that of epoch 0.
    """
    nothing = TrainingState(trial)
    try:
        with safe_open(path, framework="pt") as stream:
            progress = msgspec.json.decode((stream.metadata() or {})[_KEY], type=TrainingState)
            if progress.trial != trial or progress.epoch > last:
                return nothing
            # safetensors' stubs give no type
            tensors: dict[str, Tensor] = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, KeyError, SafetensorError, msgspec.DecodeError):
        return nothing
    weights = {name.removeprefix(_WEIGHTS): t for name, t in tensors.items() if name.startswith(_WEIGHTS)}
    own = network.state_dict()
    if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in own.items()}:
        return nothing
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
            # fused kernels walk memory: a state must lie as its parameter does (channels-last or not)
            tensor = torch.empty_like(parameter).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors wants them: on the CPU, contiguous, none sharing memory.

    A module that a network uses twice has its weights twice in the state, under two names: both are written, so that
    the network that is built to read them finds every name it knows.
    """
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        one = tensor.detach().to("cpu").contiguous()
        memory = one.untyped_storage().data_ptr()
        plain[name] = one.clone() if memory in seen else one
        seen.add(memory)
    return plain
