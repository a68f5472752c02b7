"""What the engine gives back, and what it tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one request of `samples` samples."""

    probabilities: NDArray[np.float32]
    """(samples, classes)"""
    members: tuple[str, ...]
    """ids of the members that every sample has passed; of a cascade, those that may be asked, in their order"""
    partial: bool = False
    """True when members that were asked for are missing; where they had passed some samples before, they are in these
    samples' `probabilities` and `spread` all the same"""
    spread: NDArray[np.float32] | None = None
    """(samples,), if asked for: standard deviation over the members of the probability of the class answered"""
    each: NDArray[np.float32] | None = None
    """(members, samples, classes), if asked for: the own probabilities of each of `members`"""
    depth: NDArray[np.int32] | None = None
    """(samples,), of a cascade: how many members were asked about each sample"""


@dataclass(frozen=True)
class MemberStats:
    """What was predicted since the start; times in seconds."""

    batches: int
    samples: int
    waiting: float
    """sum over batches of the time their oldest sample waited to be claimed"""
    computing: float
    """sum of the time inside the backend"""
    combining: float = 0.0
    """sum of the time in which predictions became answers: of a lane, in answers that its batches completed; of a
    member, its part of them by the samples it predicted"""


@dataclass(frozen=True, kw_only=True)
class WorkerStats(MemberStats):
    """What a lane did."""

    device: str
    lane: int
    up: bool
    restarts: int
    process: int
    """its process id; that of this process for a thread"""
    seats: Mapping[str, float] = field(default_factory=dict)
    """the time inside the backend of each member it holds"""


@dataclass(frozen=True)
class Stats:
    """What an engine did since its start; times in seconds."""

    requests: int
    """answered"""
    samples: int
    """answered"""
    partial: int
    """requests answered without all their members"""
    failed: int
    """requests that ended in an error"""
    pending: int
    """samples in the ring now"""
    capacity: int
    """samples the ring holds"""
    combining: float
    """time spent combining predictions into answers"""
    members: Mapping[str, MemberStats]
    lanes: tuple[WorkerStats, ...]
