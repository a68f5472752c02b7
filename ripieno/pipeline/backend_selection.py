"""Member and device -> backend: the quickest that is proven to answer as the member's fp32 reference does.

Theory of operation. On the cores, with the threads and in the batches that a lane will have, every candidate runs the
same validation images in turns (`backends.race`). The quickest then answers some hundred validation images more; when
it differs from the reference by more than `Terms` allow, that is noted and the next quickest is tried. The reference,
fp32 by ONNX Runtime, is a candidate as any other, so the search always ends. Networks are quantised on other images
than those they are judged on.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ripieno import backends
from ripieno.backends.backend_id import HALF, MODEL, QUANTISED, file_of, split
from ripieno.backends.candidates import candidates
from ripieno.backends.compare import time_alternately
from ripieno.errors import EngineError, LibraryError, RipienoError
from ripieno.library import BackendChoice, BackendReport, Library
from ripieno.pipeline.costs import export_members
from ripieno.tasks.metrics import accuracy, cross_entropy
from ripieno.types import Device, Ensemble

T = TypeVar("T")
Answers = NDArray[np.float32]
BATCH = 64
"""Images at a time while judging."""
CLOSE = 1.2
"""Within this of the quickest, a race is run again."""


@dataclass(frozen=True)
class Tolerances:
    """When a backend may be taken for a member, and how much is measured to know."""

    exact: float = 1e-4
    """most that a probability may differ in fp32"""
    near: float = 0.1
    """the same in bf16 and fp16; in int8 only the loss counts"""
    loss: float = 0.01
    """share of a member's validation cross-entropy that a lower precision may cost"""
    least: float = 0.001
    """nats that it may cost however low the loss is"""
    gain: float = 0.02
    """share of time that another backend than the reference must save, and again a lower precision"""
    samples: int = 1000
    """most validation images that it is judged on"""
    calibration: int = 128
    """most validation images that int8 is calibrated on: no more than a quarter of them"""
    rounds: int = 5
    turn: float = 0.05
    """seconds of a turn of the race"""


@dataclass(frozen=True)
class _Evaluated:
    """A fit and the answers behind it."""

    fit: BackendChoice
    answers: Answers
    reference: Answers


class BackendSelector:
    """Chooses backends for the members of an ensemble; measurements are kept between calls."""

    def __init__(
        self,
        library: Library,
        ensemble: Ensemble,
        backend: str,
        precision: str,
        *,
        trusted: Sequence[str] = (),
        terms: Tolerances | None = None,
    ) -> None:
        """`backend` and `precision` are what is asked for; either may be `auto`.

        Raises LibraryError when the library has no validation images to prove anything on.
        """
        self._library, self._ensemble, self._asked = library, ensemble, (backend, precision)
        self._trusted, self._terms = trusted, terms or Tolerances()
        self._images, self._labels, self._calibration = _validation(library, self._terms)
        self._judged: dict[tuple[str, str, int, int], _Evaluated] = {}
        self._answers: dict[tuple[str, str, str], Answers] = {}
        self._fresh: set[Path] = set()

    def select(self, member: str, device: Device, threads: int, batch_size: int) -> BackendChoice:
        """How to run `member` on `device` in batches of `batch_size` with `threads` threads.

        Raises EngineError when the backend asked for answers otherwise than the reference, and as `backends.load`.
        """
        key = (member, device.name, threads, batch_size)
        if key not in self._judged:
            cores = device.cores[:threads] if device.type == "cpu" else device.cores
            self._judged[key] = _pinned(cores, lambda: self._choose(member, device, threads, batch_size))
        return self._judged[key].fit

    def proof(self, fits: Sequence[BackendChoice]) -> BackendReport:
        """The ensemble's validation figures restated with `fits`, all of this fitter's own."""
        from ripieno.selection.combine import combine

        found = {f.member: self._judged[f.member, f.device, f.threads, f.batch_size] for f in reversed(fits)}
        judged = [found[m] for m in self._ensemble.members]

        def figures(answers: Sequence[Answers]) -> tuple[float, float]:
            combined = combine(np.stack(answers), self._ensemble.weights, self._ensemble.combiner)
            return cross_entropy(combined, self._labels), accuracy(combined, self._labels)

        now, before = figures([j.answers for j in judged]), figures([j.reference for j in judged])
        return BackendReport(tuple(fits), len(self._labels), now[0], before[0], now[1], before[1])

    def _choose(self, name: str, device: Device, threads: int, batch_size: int) -> _Evaluated:
        refused: dict[str, str] = {}
        tried = candidates(device, *self._asked)
        with _LoadedBackends(lambda backend: self._load(name, backend, device, threads)) as runners:
            reference = runners.first(("onnx", "torch"), refused)
            # a backend asked for by name must be there; of those that `auto` tries, any may be missing
            for backend in tried:
                runners.open(backend, refused, must=self._asked[0] != "auto" and split(backend)[1] == "fp32")
            images = np.resize(self._images, (batch_size, *self._images.shape[1:]))
            seconds = self._race(runners.loaded, images)
            answered = functools.partial(self._answered, name, device, runners.loaded)
            truth = answered(reference)
            for backend in self._order([b for b in tried if b in seconds], seconds, reference):
                answers = answered(backend)
                figures = (float(np.abs(answers - truth).max()), self._loss(answers), self._loss(truth))
                reason = rejection_reason(backend, *figures, self._terms)
                if reason and backend != reference:
                    refused[backend] = reason
                    continue
                times = (seconds[backend], seconds[reference])
                fit = BackendChoice(
                    name, device.name, backend, reference, batch_size, threads, *times, *figures, refused
                )
                return _Evaluated(fit, answers, truth)
        reasons = "; ".join(f"{backend}: {reason}" for backend, reason in refused.items())
        raise EngineError(f"{name} cannot be run as asked ({reasons}): use --backend onnx")

    def _race(self, loaded: Mapping[str, backends.Backend], images: NDArray[Any]) -> dict[str, float]:
        """Seconds a batch by backend; those close to the quickest run again, for longer."""
        rounds, turn = self._terms.rounds, self._terms.turn
        seconds = time_alternately(loaded, images, rounds=rounds, seconds=turn)
        best = min(seconds.values())
        close = {name: runner for name, runner in loaded.items() if seconds[name] < CLOSE * best}
        again = time_alternately(close, images, rounds=2 * rounds, seconds=turn) if len(close) > 1 else {}
        return {name: min(taken, again.get(name, taken)) for name, taken in seconds.items()}

    def _answered(self, name: str, device: Device, loaded: Mapping[str, backends.Backend], backend: str) -> Answers:
        """The answers of a loaded backend on the images it is judged on; they do not depend on threads."""
        key = (name, device.name, backend)
        if key not in self._answers:
            parts = [loaded[backend].infer(self._images[i : i + BATCH]) for i in range(0, len(self._images), BATCH)]
            self._answers[key] = np.concatenate(parts)
        return self._answers[key]

    def _loss(self, answers: Answers) -> float:
        return cross_entropy(answers, self._labels)

    def _order(self, tried: Sequence[str], seconds: Mapping[str, float], reference: str) -> list[str]:
        """`tried` in the order in which they may be taken: a precision asked for first, then the quickest."""
        asked = self._asked[1]

        def rank(backend: str) -> tuple[bool, float]:
            precision = split(backend)[1]
            handicap = (1 + self._terms.gain) ** ((backend != reference) + (precision != "fp32"))
            return asked not in ("auto", precision), seconds[backend] * handicap

        return sorted(tried, key=rank)

    def _load(self, name: str, backend: str, device: Device, threads: int) -> backends.Backend:
        member = self._library.member(name)
        path = self._library.model_path(name, backend)
        source = self._library.onnx_path(name)
        if file_of(backend) in (MODEL, HALF, QUANTISED):
            export_members(self._library, [member], self._trusted)
        if path not in self._fresh and path.name in (HALF, QUANTISED):
            from ripieno.backends.quantise import write_fp16, write_int8

            if path.name == HALF:
                write_fp16(source, path)
            else:
                write_int8(source, path, self._calibration)
            self._fresh.add(path)
        return backends.load(backend, path, member, device, threads, self._trusted)


class _LoadedBackends:
    """Loaded backends of one member, closed at the end."""

    def __init__(self, load: Callable[[str], backends.Backend]) -> None:
        self._load = load
        self.loaded: dict[str, backends.Backend] = {}

    def open(self, backend: str, refused: dict[str, str], must: bool = False) -> bool:
        """Load `backend` unless it is; when it cannot be, note why, or raise that if it `must`."""
        if backend not in self.loaded:
            try:
                self.loaded[backend] = self._load(backend)
            except RipienoError as error:
                if must:
                    raise
                refused[backend] = str(error)
        return backend in self.loaded

    def first(self, names: Sequence[str], refused: dict[str, str]) -> str:
        """The first of `names` that can be loaded. Raises EngineError when none can."""
        for name in names:
            if self.open(name, refused):
                return name
        raise EngineError(f"no fp32 reference to compare with: {'; '.join(refused.values())}")

    def __enter__(self) -> _LoadedBackends:
        return self

    def __exit__(self, *_: object) -> None:
        for runner in self.loaded.values():
            runner.close()


def rejection_reason(backend: str, difference: float, loss: float, reference_loss: float, terms: Tolerances) -> str:
    """Why `backend` may not stand in for its reference; empty when it may."""
    precision = split(backend)[1]
    most = {"fp32": terms.exact, "int8": 1.0}.get(precision, terms.near)
    if not difference <= most:  # so that no number is an objection too
        return f"a probability differs by {difference:.2g}, at most {most:g} is allowed"
    allowed = max(terms.least, terms.loss * reference_loss)
    if not loss - reference_loss <= allowed:
        return f"validation loss {loss:.4f} instead of {reference_loss:.4f}, at most {allowed:.2g} more is allowed"
    return ""


def _validation(library: Library, terms: Tolerances) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any]]:
    """Images and labels to judge on, and other images to calibrate on; both spread evenly over the split."""
    from ripieno.data import open_dataset

    there = (library.dataset_path / "dataset.json").exists()
    dataset = open_dataset(library.dataset_path) if there else None
    rows = dataset.rows("valid") if dataset is not None else np.empty(0, np.int64)
    if dataset is None or len(rows) < 2:
        mend = "leave --backend auto and --precision out"
        raise LibraryError(f"{library.path} has no validation images to prove a choice of backends on: {mend}")
    count = max(1, min(terms.calibration, len(rows) // 4))
    calibration = _spread(rows, count)
    judged = _spread(np.setdiff1d(rows, calibration), terms.samples)
    images = np.asarray(dataset.images[judged])
    return images, np.asarray(dataset.labels[judged]), np.asarray(dataset.images[calibration])


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return rows[np.linspace(0, len(rows), min(count, len(rows)), endpoint=False).astype(np.int64)]


def _pinned(cores: Sequence[int], call: Callable[[], T]) -> T:
    """`call()` in a thread of its own on `cores`, as in a lane; the threads it starts stay there too."""

    def run() -> T:
        if cores:
            os.sched_setaffinity(0, cores)
        return call()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()
