"""Answers and statistics of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ripieno.deprecation import warn_renamed


@dataclass(frozen=True, eq=False)
class Answer:
    """Answer to one request of `samples` samples."""

    predictions: NDArray[np.float32]
    """(samples, *task.output): probabilities, or values in the unit of the targets"""
    members: tuple[str, ...]
    """ids of the members that predicted every sample; with a cascade, those that may run, in their order"""
    partial: bool = False
    """True if requested members are missing; samples that they predicted before they failed still include them in
    `predictions` and `std`"""
    std: NDArray[np.float32] | None = None
    """on request: standard deviation over the members; (samples,) of the probability of the predicted class, of a
    segmentation its mean over the pixels; for other tasks (samples, *task.output)"""
    member_predictions: NDArray[np.float32] | None = None
    """(members, samples, *task.output), on request: the predictions of each of `members`"""
    members_evaluated: NDArray[np.int32] | None = None
    """(samples,), with a cascade: number of members that predicted each sample"""
    disagreement: NDArray[np.float32] | None = None
    """(samples,), on request: mutual information of what is true and which member is asked, nats; of a regression the
    geometric mean of its targets' standard deviations"""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Former name of `predictions`, for one version."""
        warn_renamed("Answer.probabilities", "predictions")
        return self.predictions

    @property
    def spread(self) -> NDArray[np.float32] | None:
        """Former name of `std`, for one version."""
        warn_renamed("Answer.spread", "std")
        return self.std

    @property
    def each(self) -> NDArray[np.float32] | None:
        """Former name of `member_predictions`, for one version."""
        warn_renamed("Answer.each", "member_predictions")
        return self.member_predictions

    @property
    def depth(self) -> NDArray[np.int32] | None:
        """Former name of `members_evaluated`, for one version."""
        warn_renamed("Answer.depth", "members_evaluated")
        return self.members_evaluated


@dataclass(frozen=True)
class MemberStats:
    """Work of one member since the start; times in seconds."""

    batches: int
    samples: int
    waiting: float
    """sum over batches of the time for which their oldest sample waited to be assigned"""
    computing: float
    """sum of the time in the backend"""
    combining: float = 0.0
    """sum of the time spent combining. Of a worker: for the answers that its batches completed. Of a member: its share
    by the samples it predicted."""


@dataclass(frozen=True, kw_only=True)
class WorkerStats(MemberStats):
    """Work and state of one worker."""

    device: str
    lane: int
    up: bool
    restarts: int
    process: int
    """process id of the worker; for a thread, that of this process"""
    seats: Mapping[str, float] = field(default_factory=dict)
    """time in the backend of each member that it holds"""


@dataclass(frozen=True)
class Stats:
    """Work of an engine since its start; times in seconds."""

    requests: int
    """answered requests"""
    samples: int
    """answered samples"""
    partial: int
    """requests answered without some of their members"""
    failed: int
    """requests that ended in an error"""
    pending: int
    """samples in the ring now"""
    capacity: int
    """samples that the ring can hold"""
    combining: float
    """time spent combining predictions"""
    members: Mapping[str, MemberStats]
    lanes: tuple[WorkerStats, ...]


@dataclass(frozen=True, slots=True)
class InferenceStep:
    """The prediction of one member for some samples of a request; times by `time.monotonic`."""

    member: str
    lane: int
    samples: int
    """of this request; the batch may have held samples of other requests"""
    arrived: float
    """when the samples were in the ring; their wait starts here"""
    began: float
    ended: float
