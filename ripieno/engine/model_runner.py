"""The loaded models of a worker, in a thread or a process. Imports only NumPy and the backend of the members.

Members that share a backbone are one unit: the backbone runs once a batch, then the head of each member.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends import Backend, load_unit, runtime
from ripieno.backends.network_part import backbone_file
from ripieno.backends.shared_backbone import SharedBackbone
from ripieno.engine.ring_memory import Memory, Slots
from ripieno.errors import EngineError, RipienoError
from ripieno.resources import trim_heap
from ripieno.tasks.calibration import apply_temperature
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Device, Member

Load = Callable[..., Backend]
"""Signature of `ripieno.backends.load`: backend, path, member, device, threads. `trusted` and `part` are keywords,
passed only where they are needed."""
MemberOutput = tuple[int, NDArray[np.float32]]
"""Index of a member, and its predictions (samples, *task.output) of a batch."""
Infer = Callable[[NDArray[np.generic]], list[MemberOutput]]
"""Function from samples to the outputs of the members of a unit."""


@dataclass(frozen=True)
class ModelSpec:
    """Member of a worker: its index in the ensemble, the index of its unit, and its file."""

    index: int
    unit: int
    member: Member
    path: Path
    backend: str = ""
    """backend of this member; empty: that of the worker"""
    batch_size: int = 1
    """most samples in one batch"""
    stamp: tuple[int, ...] = ()
    """fingerprint of its files when the engine was opened, by `stamp_of`"""
    temperature: float = 1.0
    """of its predictions"""


@dataclass(frozen=True)
class WorkerConfig:
    """Configuration of a worker: its models, threads and cores (empty: not pinned)."""

    backend: str
    device: Device
    threads: int
    cores: tuple[int, ...]
    models: tuple[ModelSpec, ...]
    trusted: tuple[str, ...] = ()
    """the user's own families (`module:function`) that may be imported"""
    memory_limit: int = 0
    """most bytes that it may use; 0: no limit was planned"""

    @property
    def networks(self) -> int:
        """Number of networks that it loads: its models, and the backbones that they share."""
        return len(self.models) + len({spec.member.backbone for spec in self.models} - {""})


def stamp_of(path: Path, member: Member) -> tuple[int, ...]:
    """Return the inode, size and times of the files of `member`, which change with their content; none if absent."""
    stamp: list[int] = []
    for file in dict.fromkeys((path, backbone_file(path, member) if member.backbone else path)):
        with contextlib.suppress(OSError):
            status = os.stat(file)
            stamp += status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return tuple(stamp)


def find_load(name: str) -> Load:
    """Import the function with the name `load_name` returned. Raises EngineError when it cannot be imported."""
    module, _, function = name.partition(":")
    try:
        load: Load = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise EngineError(
            f"A worker process cannot import {name}. Put the function in an importable module."
        ) from error
    return load


def load_name(load: Load) -> str:
    """Return `module:function`, by which another process imports `load`. Raises EngineError without such a name."""
    name = f"{getattr(load, '__module__', None)}:{getattr(load, '__qualname__', None)}"
    if "<" in name or "." in name.partition(":")[2] or name.startswith(("None:", "__main__:")):
        raise EngineError(f"{load!r} must be a function at the top level of a module if workers run in processes.")
    return name


def import_runtime(config: WorkerConfig) -> None:
    """Import the runtimes of a worker's members, so that their memory does not count against the members."""
    for backend in {spec.backend or config.backend for spec in config.models}:
        with contextlib.suppress(RipienoError, ImportError):  # loading the member reports the error
            runtime(backend)


def with_trusted(load: Load, trusted: Sequence[str]) -> Load:
    """Return `load` with permission to import the user's own families `trusted`, if there are any."""
    accepts_trusted: Any = load
    return functools.partial(accepts_trusted, trusted=tuple(trusted)) if trusted else load


def describe(error: BaseException) -> str:
    """Return an error in one line, with its class unless it is an error of ripieno."""
    text = " ".join(str(error).split())
    return text if isinstance(error, RipienoError) else f"{type(error).__name__}: {text}"


def _check_unchanged(spec: ModelSpec) -> None:
    """Raise EngineError when a file has changed: a restarted worker must predict as the running ones."""
    if stamp_of(spec.path, spec.member) != spec.stamp:
        raise EngineError(f"{spec.path} has changed since the engine was opened. Open the engine again.")


def _outputs_of(backend: Backend | SharedBackbone, members: Sequence[int]) -> Infer:
    """Return the function of a loaded unit of `members`."""
    if isinstance(backend, SharedBackbone):
        each = backend.infer_each
        return lambda images: list(zip(members, each(images), strict=True))
    (member,), infer = members, backend.infer
    return lambda images: [(member, infer(images))]


def _calibrate(predictions: NDArray[np.float32], temperature: float, kind: TaskKind) -> NDArray[np.float32]:
    """Return `predictions` at `temperature`, or as they are if they are not all finite."""
    if temperature == 1.0 or not np.isfinite(predictions).all():
        return predictions
    return apply_temperature(predictions, temperature, kind)


class ModelRunner:
    """Loaded members of one worker. It runs in one thread, which it pins to the worker's cores."""

    def __init__(self, load: Load, config: WorkerConfig, memory: Memory) -> None:
        self._memory = memory
        self._backends: dict[int, Backend | SharedBackbone] = {}
        """by unit"""
        self._infer: dict[int, Infer] = {}
        """by unit"""
        units: dict[int, list[ModelSpec]] = {}
        for spec in config.models:
            units.setdefault(spec.unit, []).append(spec)
        self._temperatures = {spec.index: (spec.temperature, kind_of(spec.member.task)) for spec in config.models}
        """by member, each with the kind of its task"""
        self._calibrated = {spec.unit for spec in config.models if spec.temperature != 1.0}
        self._largest = {spec.unit: spec.batch_size for spec in config.models if config.device.type == "cuda"}
        if config.cores:
            os.sched_setaffinity(0, config.cores)
        load = with_trusted(load, config.trusted)
        try:
            for unit, specs in units.items():
                for spec in specs:
                    _check_unchanged(spec)
                models = [(spec.path, spec.member) for spec in specs]
                backend = specs[0].backend or config.backend
                loaded = load_unit(load, backend, models, config.device, config.threads)
                self._backends[unit], self._infer[unit] = loaded, _outputs_of(loaded, [spec.index for spec in specs])
        except BaseException:
            self.close()
            raise

    def warm_up(self) -> dict[int, float]:
        """Run every unit on one blank sample, twice; return the seconds of the second run by its index.

        On a GPU each first runs on its largest batch: TensorRT rebuilds the engine for every batch that is larger than
        those before. This takes a minute or more and must not happen while serving.
        """
        blank = np.zeros((1, *self._memory.samples.shape[1:]), self._memory.samples.dtype)
        seconds = {}
        for unit in self._backends:
            if unit in self._largest:
                self._infer[unit](np.repeat(blank, self._largest[unit], axis=0))
            expected = (1, *self._memory.predictions.shape[2:])
            for _, predictions in self._infer[unit](blank):
                if predictions.shape != expected:
                    raise EngineError(
                        f"The prediction for one sample has shape {predictions.shape}, expected {expected}."
                    )
            start = time.perf_counter()
            self._infer[unit](blank)
            seconds[unit] = time.perf_counter() - start
        trim_heap()
        return seconds

    def run(self, unit: int, slots: Slots) -> tuple[list[MemberOutput], float]:
        """Predict the samples in `slots` with all members of `unit`, each at its temperature; return also the seconds.

        Predictions that are not all finite are returned as they are: the clip would hide negative infinity.
        """
        images = self._memory.gather(slots)
        start = time.perf_counter()
        outputs = self._infer[unit](images)
        if unit in self._calibrated:
            outputs = [(member, _calibrate(own, *self._temperatures[member])) for member, own in outputs]
        return outputs, time.perf_counter() - start

    def close(self) -> None:
        """Free the members."""
        for backend in self._backends.values():
            backend.close()
        self._backends.clear()
        self._infer.clear()
