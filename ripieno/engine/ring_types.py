"""The words of the ring: what is written into it, who reads it, and what was handed out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MAX_ASSIGNMENTS = 16
"""Most claims a lane holds, so that their tokens always fit the socket."""


@dataclass(slots=True)
class RequestSlice:
    """Samples `offset`... of `request` at positions `start` to `stop` (exclusive)."""

    request: Any
    offset: int
    start: int
    stop: int
    arrival: float
    left: list[int]
    """per member, how many of the samples it has yet to predict"""
    remaining: int
    """sum of `left`"""
    unwanted: frozenset[int]
    """members withdrawn from it"""
    freed: bool = False
    progress: Any = None
    """what a cascade knows of it"""


@dataclass(slots=True)
class BatchAssignment:
    """`lane` predicts the samples of `ranges` (pairs start, stop of positions) with `member`."""

    id: int
    lane: int
    member: int
    ranges: list[tuple[int, int]]
    samples: int
    tries: int
    """how often a lane has died over these samples"""
    since: float
    """when it was handed out"""
    waited: float
    """seconds its oldest sample had waited by then"""
    seconds: float
    """expected duration"""


@dataclass(slots=True)
class InstanceConfig:
    """One placement: `member` in a lane, in batches of `batch_size`, cut to no less than `floor` samples."""

    member: int
    batch_size: int
    floor: int = 8
    rate: float = 0.0
    """measured seconds per sample; 0 while unknown"""


@dataclass(slots=True)
class WorkerState:
    """A lane as the ring sees it."""

    instances: dict[int, InstanceConfig]
    """by member"""
    held: dict[int, BatchAssignment] = field(default_factory=dict)
    """claims handed out, oldest (the running one) first"""
    members: dict[int, int] = field(default_factory=dict)
    """how many of them are of each member that has any"""
    load: float = 0.0
    """expected seconds until all it holds is done; of an idle lane, what it takes to wake it"""
    alone: bool = False
    """what it holds is suspected of killing lanes, and predicted alone"""
    up: bool = False

    def wants(self, ahead: float, second: bool) -> bool:
        """Whether it may take a claim if there is one; see `Ring` for `ahead` and `second`."""
        held = len(self.held)
        if not held or not self.up:
            return self.up
        if self.load < ahead:
            return held < MAX_ASSIGNMENTS and not self.alone
        return second and held < 2 and not self.alone
