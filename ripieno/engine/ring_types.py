"""Data types of the ring: request slices, instances, workers and assignments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MAX_ASSIGNMENTS = 16
"""Most assignments of a worker, so that their messages always fit the socket."""


@dataclass(slots=True)
class RequestSlice:
    """Samples of `request` from `offset` on, at positions `start` to `stop` (exclusive)."""

    request: Any
    offset: int
    start: int
    stop: int
    arrival: float
    left: list[int]
    """per member, the number of samples that it has yet to predict"""
    remaining: int
    """sum of `left`"""
    unwanted: frozenset[int]
    """members that need not predict it any more"""
    freed: bool = False
    progress: Any = None
    """state of the cascade"""


@dataclass(slots=True)
class BatchAssignment:
    """Batch for `worker`: the samples of `ranges` (pairs start, stop of positions), predicted with `member`."""

    id: int
    worker: int
    member: int
    ranges: list[tuple[int, int]]
    samples: int
    tries: int
    """number of workers that died on these samples"""
    since: float
    """time of the assignment"""
    waited: float
    """seconds for which its oldest sample had waited by then"""
    seconds: float
    """expected duration"""


@dataclass(slots=True)
class InstanceConfig:
    """Placement of `member` in a worker, in batches of `batch_size`, cut to `floor` samples at least."""

    member: int
    batch_size: int
    floor: int = 8
    rate: float = 0.0
    """measured seconds per sample; 0 while unknown"""


@dataclass(slots=True)
class WorkerState:
    """State of a worker in the ring."""

    instances: dict[int, InstanceConfig]
    """by member"""
    held: dict[int, BatchAssignment] = field(default_factory=dict)
    """its assignments, oldest (the running one) first"""
    members: dict[int, int] = field(default_factory=dict)
    """number of assignments of each member that has any"""
    load: float = 0.0
    """expected seconds until all its assignments are done; when idle, the seconds it takes to wake it"""
    alone: bool = False
    """True if its assignment is suspected of killing workers, and runs alone"""
    up: bool = False

    def wants(self, ahead: float, second: bool) -> bool:
        """Return whether it may take an assignment if there is one; see `Ring` for `ahead` and `second`."""
        held = len(self.held)
        if not held or not self.up:
            return self.up
        if self.load < ahead:
            return held < MAX_ASSIGNMENTS and not self.alone
        return second and held < 2 and not self.alone
