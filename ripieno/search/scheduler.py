"""What a scheduler is: it says which trial trains on, and how far. Never which configuration: that is a sampler's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Decision:
    """Train trial `trial` from the end of epoch `start` to the end of epoch `stop`; a new trial when `start` is 0."""

    trial: int
    start: int
    stop: int


class Scheduler(Protocol):
    """Pure: the same calls in the same order give the same decisions. New trials are numbered from 0 as issued."""

    started: int
    """how many trials were issued"""

    def options(self) -> Iterator[Decision]:
        """What a free worker could do now, most urgent first; empty: wait, or the search has ended."""
        ...

    def issue(self, decision: Decision) -> None:
        """`decision`, one of the options, is being carried out."""
        ...

    def tell(self, decision: Decision, loss: float | None) -> None:
        """`decision` ended with `loss` (smaller is better); None: it failed."""
        ...
