"""The words of the ring: what is written into it, who reads it, and what was handed out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Span:
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
class Claim:
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
class Post:
    """One placement: `member` in a lane, in batches of `batch_size`, cut to no less than `floor` samples."""

    member: int
    batch_size: int
    floor: int = 8
    rate: float = 0.0
    """measured seconds per sample; 0 while unknown"""
