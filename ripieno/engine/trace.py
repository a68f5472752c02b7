"""What became of one request inside the engine, for those who ask: `Engine.submit(..., steps=[])`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InferenceStep:
    """A member's prediction of some samples of a request; times by `time.monotonic`."""

    member: str
    lane: int
    samples: int
    """of this request; others may have been in the batch"""
    arrived: float
    """when the samples were in the ring: they waited from here on"""
    began: float
    ended: float
