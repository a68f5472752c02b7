"""Member and device -> backend: the fastest with the predictions of the member's fp32 reference.

Theory of operation. Every candidate runs the same validation images in turns, on the cores, threads and batch size of
its future worker (`backends.compare.time_alternately`). The fastest then predicts up to `Tolerances.samples`
validation images. If it differs from the reference by more than `Tolerances` allow, the reason is recorded and the next
fastest is tried. The reference, fp32 by ONNX Runtime, is a candidate too, so the search always ends. Networks are
quantised on other images than those they are evaluated on.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ripieno import backends
from ripieno.backends.backend_id import HALF, MODEL, QUANTISED, file_of, split
from ripieno.backends.batch_limit import limit_batch
from ripieno.backends.candidates import candidates
from ripieno.backends.compare import time_alternately
from ripieno.backends.difference import largest_difference
from ripieno.data.dataset import BATCH, batches, find_dataset, spread_rows
from ripieno.errors import EngineError, LibraryError, RipienoError
from ripieno.library import BackendChoice, BackendReport, Library
from ripieno.pipeline.costs import export_members
from ripieno.tasks.registry import kind_of
from ripieno.types import Device, Ensemble, OutputActivation

T = TypeVar("T")
Answers = NDArray[np.float32]
"""Predictions (samples, *task.output) of the evaluation inputs."""
CLOSE = 1.2
"""Backends within this factor of the fastest are timed again."""


@dataclass(frozen=True)
class Tolerances:
    """Conditions on which a backend is accepted for a member, and the amount of measurement."""

    exact: float = 1e-4
    """largest difference of a prediction in fp32; see `largest_difference`"""
    near: float = 0.1
    """the same in bf16 and fp16; int8 is limited by its loss only"""
    loss: float = 0.01
    """share of a member's validation loss that a lower precision may cost"""
    least: float = 0.001
    """nats that it may always cost, however low the loss is; of a loss in the unit of targets nothing"""
    gain: float = 0.02
    """share of time that a backend other than the reference must save, and a lower precision once more"""
    samples: int = 1000
    """most validation images in the evaluation"""
    calibration: int = 128
    """most validation images for int8 calibration, at most a quarter of them"""
    rounds: int = 5
    turn: float = 0.05
    """seconds of one timing turn"""


@dataclass(frozen=True)
class _Evaluated:
    """A choice and the predictions it rests on."""

    choice: BackendChoice
    answers: Answers
    reference: Answers


class BackendSelector:
    """Selector of backends for the members of an ensemble; it keeps its measurements between calls."""

    def __init__(
        self, library: Library, ensemble: Ensemble, backend: str, precision: str, *, terms: Tolerances | None = None
    ) -> None:
        """Load validation images. `backend` and `precision` are the user's options; either may be `auto`.

        Raises LibraryError when the library has no validation samples to compare predictions on.
        """
        self._library, self._ensemble, self._requested = library, ensemble, (backend, precision)
        self._terms = terms or Tolerances()
        self._images, self._targets, self._calibration = _validation(library, self._terms)
        self._task = library.member(ensemble.members[0]).task
        self._batch = limit_batch(BATCH, self._task.output)
        self._kind = kind_of(self._task)
        self._evaluated: dict[tuple[str, str, int, int], _Evaluated] = {}
        self._answers: dict[tuple[str, str, str], Answers] = {}
        self._written: set[Path] = set()
        self._devices: dict[str, Device] = {}

    def select(self, member: str, device: Device, threads: int, batch_size: int) -> BackendChoice:
        """Choose the backend that runs `member` on `device` in batches of `batch_size` with `threads` threads.

        Raises EngineError when the requested backend's predictions differ from the reference, and as `backends.load`.
        """
        self._devices[device.name] = device
        key = (member, device.name, threads, batch_size)
        if key not in self._evaluated:
            cores = device.cores[:threads] if device.type == "cpu" else device.cores
            self._evaluated[key] = _pinned(cores, lambda: self._choose(member, device, threads, batch_size))
        return self._evaluated[key].choice

    def select_reference(self, choice: BackendChoice) -> BackendChoice:
        """Replace a choice by the reference, for members that must run with one backend and chose several."""
        device, key = self._devices[choice.device], (choice.member, choice.device, choice.threads, choice.batch_size)
        cores = device.cores[: choice.threads] if device.type == "cpu" else device.cores
        own = (choice.member, device, choice.threads, choice.batch_size)
        self._evaluated[key] = _pinned(cores, lambda: self._choose(*own, only_reference=True))
        return self._evaluated[key].choice

    def proof(self, choices: Sequence[BackendChoice]) -> BackendReport:
        """Compute the ensemble's validation figures with `choices`, all made by this selector."""
        from ripieno.tasks.calibration import combine_calibrated

        by_member = {c.member: self._evaluated[c.member, c.device, c.threads, c.batch_size] for c in reversed(choices)}
        evaluated = [by_member[m] for m in self._ensemble.members]

        def figures(answers: Sequence[Answers]) -> tuple[float, float]:
            combined = combine_calibrated(answers, self._ensemble, self._kind)
            scores = self._kind.scores(combined, self._targets, self._task, self._ensemble.thresholds)
            return scores[self._kind.metrics[0]], scores[self._kind.default_metric]

        now, before = figures([e.answers for e in evaluated]), figures([e.reference for e in evaluated])
        return BackendReport(tuple(choices), len(self._targets), now[0], before[0], now[1], before[1])

    def _choose(
        self, name: str, device: Device, threads: int, batch_size: int, only_reference: bool = False
    ) -> _Evaluated:
        rejected: dict[str, str] = {}
        with _LoadedBackends(lambda backend: self._load(name, backend, device, threads)) as runners:
            reference = runners.first(("onnx", "torch"), rejected)
            tried = (reference,) if only_reference else candidates(device, *self._requested)
            # a backend requested by name must load; `auto` skips those that do not
            for backend in tried:
                runners.open(backend, rejected, must=self._requested[0] != "auto" and split(backend)[1] == "fp32")
            images = np.resize(self._images, (batch_size, *self._images.shape[1:]))
            seconds = self._time(runners.loaded, images)
            predict = functools.partial(self._predict, name, device, runners.loaded)
            expected = predict(reference)
            for backend in self._order([b for b in tried if b in seconds], seconds, reference):
                answers = predict(backend)
                difference = largest_difference(answers, expected, self._kind.activation)
                figures = (difference, self._loss(answers), self._loss(expected))
                reason = rejection_reason(backend, *figures, self._terms, self._kind.activation)
                if reason and backend != reference:
                    rejected[backend] = reason
                    continue
                times = (seconds[backend], seconds[reference])
                known = (name, device.name, backend, reference, batch_size, threads)
                return _Evaluated(BackendChoice(*known, *times, *figures, rejected), answers, expected)
        reasons = "; ".join(f"{backend}: {reason}" for backend, reason in rejected.items())
        raise EngineError(f"no requested backend can run {name} ({reasons}): use --backend onnx")

    def _time(self, loaded: Mapping[str, backends.Backend], images: NDArray[Any]) -> dict[str, float]:
        """Measure seconds per batch by backend; those close to the fastest run again, for longer."""
        rounds, turn = self._terms.rounds, self._terms.turn
        seconds = time_alternately(loaded, images, rounds=rounds, seconds=turn)
        best = min(seconds.values())
        close = {name: runner for name, runner in loaded.items() if seconds[name] < CLOSE * best}
        again = time_alternately(close, images, rounds=2 * rounds, seconds=turn) if len(close) > 1 else {}
        return {name: min(taken, again.get(name, taken)) for name, taken in seconds.items()}

    def _predict(self, name: str, device: Device, loaded: Mapping[str, backends.Backend], backend: str) -> Answers:
        """Predict the evaluation images with a loaded backend, once: predictions do not depend on threads."""
        key = (name, device.name, backend)
        if key not in self._answers:
            images = batches(self._images, np.arange(len(self._images)), self._batch)
            self._answers[key] = np.concatenate([loaded[backend].infer(batch) for batch in images])
        return self._answers[key]

    def _loss(self, answers: Answers) -> float:
        return self._kind.scores(answers, self._targets, self._task)[self._kind.metrics[0]]

    def _order(self, tried: Sequence[str], seconds: Mapping[str, float], reference: str) -> list[str]:
        """Sort `tried` by preference: the requested precision first, then the fastest."""
        requested = self._requested[1]

        def rank(backend: str) -> tuple[bool, float]:
            precision = split(backend)[1]
            handicap = (1 + self._terms.gain) ** ((backend != reference) + (precision != "fp32"))
            return requested not in ("auto", precision), seconds[backend] * handicap

        return sorted(tried, key=rank)

    def _load(self, name: str, backend: str, device: Device, threads: int) -> backends.Backend:
        member = self._library.member(name)
        path = self._library.model_path(name, backend)
        source = self._library.onnx_path(name)
        if file_of(backend) in (MODEL, HALF, QUANTISED):
            export_members(self._library, [member])
        if member.backbone and path.name in (HALF, QUANTISED):
            raise EngineError("a shared backbone has no file in a lower precision")
        if path not in self._written and path.name in (HALF, QUANTISED):
            from ripieno.backends.quantise import write_fp16, write_int8

            if path.name == HALF:
                write_fp16(source, path)
            else:
                write_int8(source, path, self._calibration)
            self._written.add(path)
        return backends.load(backend, path, member, device, threads, self._library.trusted)


class _LoadedBackends(ExitStack):
    """Loaded backends of one member; a context manager that closes them."""

    def __init__(self, load: Callable[[str], backends.Backend]) -> None:
        super().__init__()
        self._load = load
        self.loaded: dict[str, backends.Backend] = {}

    def open(self, backend: str, rejected: dict[str, str], must: bool = False) -> bool:
        """Load `backend` unless it is loaded; on an error record the reason, or raise it with `must`."""
        if backend not in self.loaded:
            try:
                self.loaded[backend] = self.enter_context(closing(self._load(backend)))
            except RipienoError as error:
                if must:
                    raise
                rejected[backend] = str(error)
        return backend in self.loaded

    def first(self, names: Sequence[str], rejected: dict[str, str]) -> str:
        """Return the first of `names` that can be loaded. Raises EngineError when none can."""
        for name in names:
            if self.open(name, rejected):
                return name
        raise EngineError(f"cannot load the fp32 reference: {'; '.join(rejected.values())}")


def rejection_reason(
    backend: str,
    difference: float,
    loss: float,
    reference_loss: float,
    terms: Tolerances,
    activation: OutputActivation = "softmax",
) -> str:
    """Return the reason why `backend` cannot replace its reference; empty when it can.

    `activation` is that of the predictions: differences of values are relative, and so is what their loss may grow.
    """
    precision = split(backend)[1]
    most = {"fp32": terms.exact, "int8": math.inf}.get(precision, terms.near)
    if not difference <= most:  # `not <=` rejects NaN too
        what = "a value, relative to the largest," if activation == "identity" else "a probability"
        return f"{what} differs by {difference:.2g}, the limit is {most:g}"
    allowed = max(0.0 if activation == "identity" else terms.least, terms.loss * reference_loss)
    if not loss - reference_loss <= allowed:
        return f"validation loss {loss:.4f} instead of {reference_loss:.4f}, the limit is {allowed:.2g} more"
    return ""


def _validation(library: Library, terms: Tolerances) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Read inputs and targets to evaluate on, and other inputs to calibrate on; both spread evenly over the split.

    With folds these are training samples, which serves to compare backends of the same members with each other.
    """
    dataset = find_dataset(library.dataset_path)
    rows = dataset.rows("valid") if dataset is not None else np.empty(0, np.int64)
    if dataset is None or len(rows) < 2:
        advice = "leave out --backend auto and --precision"
        raise LibraryError(f"{library.path} has no validation samples to compare backends on: {advice}")
    count = max(1, min(terms.calibration, len(rows) // 4))
    calibration = spread_rows(rows, count)
    # the predictions by each backend are kept
    most = limit_batch(terms.samples, dataset.task.output)
    evaluated = spread_rows(np.setdiff1d(rows, calibration), most)
    images = np.asarray(dataset.inputs[evaluated])
    return images, np.asarray(dataset.targets[evaluated]), np.asarray(dataset.inputs[calibration])


def _pinned(cores: Sequence[int], call: Callable[[], T]) -> T:
    """Call `call` in its own thread on `cores`, as a worker does; threads that it starts inherit the affinity."""

    def run() -> T:
        if cores:
            os.sched_setaffinity(0, cores)
        return call()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()
