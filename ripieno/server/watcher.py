"""Watcher of a served bundle: compares what it is asked and answers with its validation samples (`serve --watch`).

The event loop hands each answered request to `submit`, which only appends it to a bounded queue. A thread takes windows
of samples from there. It works for a small share of the time, and requests that find the queue full are counted and
dropped: answering never waits for the watcher. The watcher warns and asks for labels; it never changes what is served.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.library.validation_statistics import read_statistics
from ripieno.shell_command import command
from ripieno.tasks.drift import WINDOW, DriftDetector, DriftEvent, measure
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle

log = logging.getLogger("ripieno.server")

QUEUE_SAMPLES, QUEUE_BYTES = 1024, 64 << 20
"""Samples, and bytes of their inputs and predictions, that wait at most; one larger request may wait alone."""
WORK_SHARE = 0.1
"""Share of the time in which the thread works at most."""
PAUSE = 0.1
"""Seconds after a window: more than ten a second would tell no more."""
DELAY = 0.05
"""Seconds for which requests gather: the thread then wakes less often."""
PIECE = 0.001
"""Seconds for which the thread works before it pauses."""
request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the current request, as in its response's header `x-request-id`."""


class WatchedRequest(NamedTuple):
    """An answered request."""

    id: str
    """that of the response's header `x-request-id`"""
    inputs: NDArray[np.generic]
    """(samples, *input.shape), read-only"""
    predictions: NDArray[np.float32]
    """(samples, *task.output), combined, as served"""
    disagreement: NDArray[np.float32] | None
    """(samples,) of the members, where it is watched"""
    partial: bool
    """whether members are missing: such answers are not compared"""
    client_id: str = ""
    """`id` in the body of a request of the Open Inference Protocol"""

    @property
    def bytes(self) -> int:
        """Bytes of its inputs and predictions."""
        return self.inputs.nbytes + self.predictions.nbytes


class DriftWatcher:
    """Watcher of `bundle`, served as `name`. `submit` is thread-safe.

    Each of `followers` is called in the watcher's thread with every request that was not dropped. Raises LibraryError
    where the bundle has no statistics of its validation samples, or cannot be watched.
    """

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.name, self.bundle = name, bundle
        self._kind = kind_of(bundle.task)
        statistics = read_statistics(bundle)
        # early exit changes what the members say of a sample: fewer are asked
        skipped = () if bundle.cascade is None else ("confidence", "disagreement")
        compared = tuple(d for d in statistics.distributions if d.subject not in skipped)
        self.detector = DriftDetector(dataclasses.replace(statistics, distributions=compared))
        self._needs_disagreement = any(d.subject == "disagreement" for d in compared)
        self.followers: list[Callable[[WatchedRequest], None]] = []
        self.windows = 0
        """windows that were compared"""
        self.samples = 0
        """samples that were compared, or wait for their window to fill"""
        self.dropped = 0
        """samples of requests that found the queue full"""
        self.since: float | None = None
        """Unix seconds of the begin of the drift; None without one"""
        self._queue: deque[WatchedRequest] = deque()
        self._queued_samples = self._queued_bytes = 0
        self._window: list[WatchedRequest] = []
        self._window_samples = 0
        self._lock = threading.Lock()
        self._work = threading.Lock()
        self._filled, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def wants_disagreement(self) -> bool:
        """True if the next answer must come with the members' disagreement: without it, it would be dropped.

        It takes the engine's time, so none is asked for while the queue is full.
        """
        return self._needs_disagreement and self._queued_samples < QUEUE_SAMPLES

    def submit(self, request: WatchedRequest) -> bool:
        """Queue an answered request; return False where it was dropped, because the queue is or was full."""
        samples = len(request.inputs)
        with self._lock:
            lacks = self._needs_disagreement and request.disagreement is None and not request.partial
            full = self._queued_samples + samples > QUEUE_SAMPLES or self._queued_bytes + request.bytes > QUEUE_BYTES
            if self._closed.is_set() or lacks or (full and self._queue):
                self.dropped += samples
                return False
            self._queue.append(request)
            self._queued_samples += samples
            self._queued_bytes += request.bytes
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"ripieno-watch-{self.name}", daemon=True)
                self._thread.start()
            if self._queued_samples >= WINDOW or len(self._queue) == 1:
                self._filled.set()
        return True

    def flush(self) -> None:
        """Take every request that waits, in the calling thread."""
        while self._take_one():
            pass

    def close(self) -> None:
        """Stop the thread; requests that wait are discarded."""
        self._closed.set()
        self._filled.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def document(self) -> dict[str, Any]:
        """Return the document of `GET /v2/models/M/drift`."""
        detector = self.detector
        return {
            "model_name": self.name,
            "drift": detector.drifting,
            "since": self.since,
            "moved": list(detector.moved) if detector.drifting else [],
            "advice": self.advice if detector.drifting else "",
            "windows": self.windows,
            "window_samples": WINDOW,
            "samples": self.samples,
            "dropped_samples": self.dropped,
            "validation_samples": detector.reference.samples,
            "statistics": [
                {
                    "name": state.distribution.name,
                    "subject": state.distribution.subject,
                    "distance": state.comparison.distance,
                    "p": state.p,
                    "change": state.comparison.change if state.streak else "",
                    "moved": state.moved,
                }
                for state in detector.states.values()
            ],
        }

    def summary(self) -> dict[str, Any]:
        """Return the state in short, for `GET /overview`."""
        detector = self.detector
        moved = list(detector.moved) if detector.drifting else []
        return {"drift": detector.drifting, "moved": moved, "windows": self.windows, "dropped": self.dropped}

    @property
    def advice(self) -> str:
        """Advice about a drift: labels, and the next command."""
        reselect = command("reselect", "RUN", "BUNDLE", recent="DATA")
        return f"Label some recent requests, at least 50, and select again: `{reselect}`."

    def _run(self) -> None:
        while not self._closed.is_set():
            self._filled.wait()
            self._filled.clear()
            self._closed.wait(DELAY)
            worked, windows = time.thread_time(), self.windows
            while not self._closed.is_set() and self._take_one():
                seconds, compared = time.thread_time() - worked, self.windows - windows
                if compared or seconds > PIECE:
                    self._closed.wait(max(seconds * (1 / WORK_SHARE - 1), PAUSE * compared))
                    worked, windows = time.thread_time(), self.windows

    def _take_one(self) -> bool:
        """Take the request that waits for longest; return False without one. Errors are logged."""
        with self._work:
            request = self._take()
            if request is None:
                return False
            try:
                self._add(request)
            except Exception:
                log.exception("the watcher of model %s failed on a request; it goes on with the next one", self.name)
            return True

    def _take(self) -> WatchedRequest | None:
        with self._lock:
            if not self._queue:
                return None
            request = self._queue.popleft()
            self._queued_samples -= len(request.inputs)
            self._queued_bytes -= request.bytes
            return request

    def _add(self, request: WatchedRequest) -> None:
        for follower in self.followers:
            follower(request)
        if request.partial:
            return
        self.samples += len(request.inputs)
        self._window.append(request)
        self._window_samples += len(request.inputs)
        while self._window_samples >= WINDOW:
            taken, self._window = _split(self._window, WINDOW)
            self._window_samples -= WINDOW
            self._compare(taken)

    def _compare(self, requests: list[WatchedRequest]) -> None:
        """Compare a window; log the begin and the end of a drift."""
        ensemble, bundle = self.bundle.ensemble, self.bundle
        parts = [r.disagreement for r in requests if r.disagreement is not None]
        measured = measure(
            self._kind,
            bundle.task,
            bundle.input,
            np.concatenate([r.inputs for r in requests]),
            np.concatenate([r.predictions for r in requests]),
            np.concatenate(parts) if parts else None,
            ensemble.thresholds,
        )
        event = self.detector.add({m.name: m.values for m in measured})
        if event is not None:
            self._note(event)
        self.windows += 1  # last: a reader of it sees what the window changed

    def _note(self, event: DriftEvent) -> None:
        moved = ", ".join(event.moved[:5]) + (f" and {len(event.moved) - 5} more" if len(event.moved) > 5 else "")
        if event.began:
            self.since = time.time()
            log.warning("drift of model %s began: %s. %s", self.name, moved, self.advice)
        else:
            self.since = None
            log.warning("drift of model %s ended: %s", self.name, moved)


def _split(requests: list[WatchedRequest], samples: int) -> tuple[list[WatchedRequest], list[WatchedRequest]]:
    """Split requests after a number of samples."""
    taken: list[WatchedRequest] = []
    for at, request in enumerate(requests):
        if len(request.inputs) >= samples:
            rest = _rows(request, slice(samples, None))
            taken.append(_rows(request, slice(0, samples)))
            return taken, [*([rest] if len(rest.inputs) else []), *requests[at + 1 :]]
        taken.append(request)
        samples -= len(request.inputs)
    return taken, []


def _rows(request: WatchedRequest, rows: slice) -> WatchedRequest:
    disagreement = None if request.disagreement is None else request.disagreement[rows]
    return request._replace(
        inputs=request.inputs[rows], predictions=request.predictions[rows], disagreement=disagreement
    )
