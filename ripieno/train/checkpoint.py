"""Checkpoint of a trial's last finished epoch: tensors of the trainer and the curve, in one safetensors file.

Tensors that a trainer sets apart have a `.npy` file each next to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, numpy, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.tasks.registry import DEFAULT_TASK
from ripieno.types import Configuration, Dataset, Epoch

_KEY = "ripieno"
_APART = "apart"
"""Key of the files of large tensors in the metadata, by the tensors' names."""


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
    if dataset.task.kind != DEFAULT_TASK:  # the hash of version 1, which had no other
        data.append(dataset.task.kind)
    if dataset.folds is not None:
        data.append(hashlib.sha256(dataset.folds.tobytes()).hexdigest())
    # the version is a part of the hash: it stays 1, so that checkpoints of version 1 are resumed
    content = files.to_json([seed, trial, family, dict(sorted(configuration.items())), data], version=1)
    return hashlib.sha256(content).hexdigest()


def weights_bytes(network: nn.Module, shared: str = "") -> bytes:
    """Serialise the network's weights and buffers in the safetensors format, but for names that begin with `shared`."""
    return save(_to_serialisable(own_weights(network, shared)))


def own_weights(network: nn.Module, shared: str = "") -> dict[str, Tensor]:
    """Return the network's weights and buffers, but for names that begin with `shared`; empty: all."""
    return {name: t for name, t in network.state_dict().items() if not shared or not name.startswith(shared)}


def write_checkpoint(
    path: Path, progress: TrainingState, tensors: Mapping[str, NDArray[Any]], apart: Collection[str] = ()
) -> None:
    """Write a checkpoint atomically; `tensors` are the trainer's, and those of them named in `apart` get files.

    These are `TRIAL-eEPOCH-NAME.npy`, written before the checkpoint that names them. Then those of the checkpoint
    before are removed.
    """
    contiguous = {name: np.require(array, requirements="C") for name, array in tensors.items()}
    parted = {name: contiguous.pop(name) for name in apart if name in contiguous}
    places = {name: f"{path.stem}-e{progress.epoch:03d}-{name}.npy" for name in parted}
    for name, array in parted.items():
        files.write_array(path.with_name(places[name]), array)
    header = {_KEY: files.to_json(progress).decode()}
    if places:
        header[_APART] = msgspec.json.encode(places).decode()
    files.write_bytes(path, numpy.save(contiguous, header))
    for former in path.parent.glob(f"{path.stem}-e*.npy") if apart else ():
        if former.name not in places.values():
            files.remove_file(former)


def read_checkpoint(path: Path, trial: str, last: int) -> tuple[TrainingState, dict[str, NDArray[Any]]] | None:
    """Read the progress and the tensors of a checkpoint of `trial` at epoch `last` or before.

    Returns None for a checkpoint that is absent, broken, of another trial, or of a later epoch.
    """
    try:
        with safe_open(path, framework="np") as stream:
            header = (stream.metadata() or {})[_KEY]
            progress = files.from_json(header, TrainingState, path)
            if progress.trial != trial or progress.epoch > last:
                return None
            # safetensors' stubs have no type here
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            places = msgspec.json.decode((stream.metadata() or {}).get(_APART, "{}"), type=dict[str, str])
        for name, place in places.items():
            tensors[name] = files.read_array(path.with_name(Path(place).name))
    except (OSError, KeyError, TypeError, SafetensorError, LibraryError):
        return None
    if msgspec.json.decode(header)["version"] == 1:  # the tensors had no epoch
        tensors["epoch"] = np.array(progress.epoch)
    return progress, tensors


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
