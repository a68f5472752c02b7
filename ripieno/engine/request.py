"""State of one request in the engine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.event_loop import Timer
from ripieno.engine.inference_result import Answer, InferenceStep
from ripieno.engine.ring import RequestSlice
from ripieno.errors import EngineError

T = TypeVar("T", bound=np.generic)


class ExecutionPlan(NamedTuple):
    """Options of a request; neighbouring slices with the same plan are combined together."""

    members: tuple[int, ...]
    """in the ensemble's order, or in that of the cascade"""
    spread: bool = False
    each: bool = False
    disagreement: bool = False
    threshold: float | None = None
    """with a cascade: members run in turn, on samples that are not yet sure"""
    temperature: float = 1.0
    """of the combined predictions"""
    units: Mapping[int, tuple[int, ...]] = MappingProxyType({})
    """the members by unit, in the order in which units run in a cascade; a unit predicts with all its members, of which
    these are wanted"""

    def without(self, members: Collection[int]) -> ExecutionPlan:
        """Return the plan without `members`; units of which no member is left are not run."""
        left = {unit: tuple(m for m in own if m not in members) for unit, own in self.units.items()}
        remaining = tuple(m for m in self.members if m not in members)
        return self._replace(members=remaining, units={unit: own for unit, own in left.items() if own})


class PartialResult(NamedTuple):
    """Predictions for consecutive samples of a request, from sample `offset` on."""

    offset: int
    predictions: NDArray[np.float32]
    members: tuple[int, ...]
    """members in the result; parts of one request may differ after a deadline or the death of a member"""
    spread: NDArray[np.float32] | None = None
    each: NDArray[np.float32] | None = None
    """(members, samples, *task.output)"""
    depth: NDArray[np.int32] | None = None
    disagreement: NDArray[np.float32] | None = None

    def each_of(self, members: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Return the predictions of `members`, which must all be in the part; None if they were not requested."""
        if self.each is None or members == self.members:
            return self.each
        return self.each[[self.members.index(m) for m in members]]


_cancelling = threading.Lock()


class AnswerFuture(Future[Answer]):
    """Future that informs the engine, and the threads that wait for it, when it is cancelled."""

    dropped: Callable[[], None] | None = None
    notified = False
    """True once `wait` and `as_completed` were notified of the cancellation, which may happen once"""

    def cancel(self) -> bool:
        """Cancel; samples that no worker has begun are not predicted."""
        if not super().cancel():
            return False
        with _cancelling:
            first, self.notified = not self.notified, True
        if first:
            self.set_running_or_notify_cancel()
        if self.dropped:
            dropped, self.dropped = self.dropped, None
            dropped()
        return True


@dataclass(slots=True, eq=False)
class Request:
    """State of a request; changed under the request table's lock, except `parts`: any worker may append to it."""

    samples: int
    plan: ExecutionPlan
    left: int
    """samples that are not yet answered"""
    future: AnswerFuture = field(default_factory=AnswerFuture)
    slices: list[RequestSlice] = field(default_factory=list)
    parts: list[PartialResult] = field(default_factory=list)
    partial: bool = False
    timers: tuple[Timer, ...] = ()
    """timers of its deadline, and of the end of its wait for room"""
    steps: list[InferenceStep] | None = None
    """list of the members' steps, if the caller passed one"""
    closed: bool = False
    """True once answered, failed or cancelled; later results are discarded"""
    images: NDArray[np.generic] | None = None
    """images that are not yet written, of a request that waits for room"""
    written: int = 0
    """samples that are or were in the ring"""
    admitted: threading.Event | None = None
    """of a request that had to wait for room: set when it is completely written, or dropped"""
    refusal: EngineError | None = None
    """error with which it was dropped while it waited for room"""

    def answer(self, members: tuple[int, ...], names: tuple[str, ...]) -> Answer:
        """Assemble the answer from its parts; `members`, with the ids `names`, have predicted every sample."""
        if len(self.parts) == 1:
            part = self.parts[0]
            each = part.each_of(members)
            return Answer(part.predictions, names, self.partial, part.spread, each, part.depth, part.disagreement)
        unique = {part.offset: part for part in self.parts}  # at a deadline the same slice may be combined twice
        parts = [unique[offset] for offset in sorted(unique)]
        return Answer(
            np.concatenate([part.predictions for part in parts]),
            names,
            self.partial,
            _join([part.spread for part in parts]),
            _join([part.each_of(members) for part in parts], axis=1),
            _join([part.depth for part in parts]),
            _join([part.disagreement for part in parts]),
        )

    def resolve(self, answer: Answer) -> None:
        """Set the answer, unless the caller has cancelled meanwhile."""
        self.future.dropped = None
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(answer)

    def reject(self, error: Exception) -> None:
        """Set an error, unless the caller has cancelled meanwhile."""
        self.future.dropped = None
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


def _join(arrays: Sequence[NDArray[T] | None], axis: int = 0) -> NDArray[T] | None:
    present = [array for array in arrays if array is not None]
    return np.concatenate(present, axis=axis) if present else None
