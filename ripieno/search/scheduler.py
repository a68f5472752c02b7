"""Scheduler protocol: decides which trial trains next and to which epoch. A sampler chooses the configurations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Decision:
    """Step that trains `trial` from the end of epoch `start` to the end of epoch `stop`; `start` 0: a new trial."""

    trial: int
    start: int
    stop: int


class Scheduler(Protocol):
    """Pure decisions: the same calls in the same order give the same ones. New trials are numbered from 0 as issued."""

    started: int
    """number of trials issued"""

    def options(self) -> Iterator[Decision]:
        """Yield the possible next steps, most urgent first; empty: wait, or the search has ended."""

    def issue(self, decision: Decision) -> None:
        """Record that `decision`, one of the options, was started."""

    def tell(self, decision: Decision, loss: float | None) -> None:
        """Record the `loss` of `decision` (smaller is better); None: it failed."""
