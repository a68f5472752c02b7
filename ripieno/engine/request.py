"""A request on its way through the engine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ripieno.engine.inference_result import Answer
from ripieno.engine.ring_types import RequestSlice
from ripieno.engine.supervisor import Timer
from ripieno.engine.trace import InferenceStep
from ripieno.errors import EngineError

T = TypeVar("T", bound=np.generic)


class ExecutionPlan(NamedTuple):
    """What is to be done with samples; spans of equal plans are combined together."""

    members: tuple[int, ...]
    """in the ensemble's order, or in that of the cascade"""
    spread: bool = False
    each: bool = False
    threshold: float | None = None
    """of a cascade: members are asked one after the other, for samples that are not yet sure"""


class PartialResult(NamedTuple):
    """Answers to consecutive samples of a request, from sample `offset` on."""

    offset: int
    probabilities: NDArray[np.float32]
    members: tuple[int, ...]
    """who is in it; parts of one request may differ, by a deadline or by a member that died"""
    spread: NDArray[np.float32] | None = None
    each: NDArray[np.float32] | None = None
    """(members, samples, classes)"""
    depth: NDArray[np.int32] | None = None

    def each_of(self, members: tuple[int, ...]) -> NDArray[np.float32] | None:
        """What each of `members` said, all of whom are in the part; None when nobody asked for that."""
        if self.each is None or members == self.members:
            return self.each
        return self.each[[self.members.index(m) for m in members]]


_cancelling = threading.Lock()


class AnswerFuture(Future[Answer]):
    """A future that tells the engine when its caller has lost interest, and whoever waits for it that it is over."""

    dropped: Callable[[], None] | None = None
    notified = False
    """whether `wait` and `as_completed` were told of the cancelling, which may be done once"""

    def cancel(self) -> bool:
        """Cancel; what no lane has begun is not predicted."""
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
    """State of a request; changed under the dispatcher's lock, save `parts`, which any lane may append to."""

    samples: int
    plan: ExecutionPlan
    left: int
    """samples not yet answered"""
    future: AnswerFuture = field(default_factory=AnswerFuture)
    spans: list[RequestSlice] = field(default_factory=list)
    parts: list[PartialResult] = field(default_factory=list)
    partial: bool = False
    timers: tuple[Timer, ...] = ()
    """its deadline, and the end of its wait for room"""
    steps: list[InferenceStep] | None = None
    """takes what the members do about it, where somebody asked for that"""
    closed: bool = False
    """answered, failed or cancelled: what still comes is thrown away"""
    images: NDArray[np.generic] | None = None
    """what is yet to be written, of a request that waits for room"""
    written: int = 0
    """samples that are in the ring, or were"""
    admitted: threading.Event | None = None
    """of a request that had to wait for room: set when it is written whole, or dropped"""
    refusal: EngineError | None = None
    """why it was dropped while it waited for room"""

    def answer(self, members: tuple[int, ...], names: tuple[str, ...]) -> Answer:
        """Put the parts together; `members`, whose ids are `names`, have passed every sample."""
        if len(self.parts) == 1:
            part = self.parts[0]
            each = part.each_of(members)
            return Answer(part.probabilities, names, self.partial, part.spread, each, part.depth)
        unique = {part.offset: part for part in self.parts}  # a deadline may combine what is just being combined
        parts = [unique[offset] for offset in sorted(unique)]
        return Answer(
            np.concatenate([part.probabilities for part in parts]),
            names,
            self.partial,
            _join([part.spread for part in parts]),
            _join([part.each_of(members) for part in parts], axis=1),
            _join([part.depth for part in parts]),
        )

    def resolve(self, answer: Answer) -> None:
        """Hand the answer over; a caller that has cancelled meanwhile gets none."""
        self.future.dropped = None
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(answer)

    def reject(self, error: Exception) -> None:
        """Hand an error over."""
        self.future.dropped = None
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


def _join(arrays: Sequence[NDArray[T] | None], axis: int = 0) -> NDArray[T] | None:
    """Parts in one; None when they are absent."""
    there = [array for array in arrays if array is not None]
    return np.concatenate(there, axis=axis) if there else None
