"""Scheduler protocol: decides which trial trains next and to which epoch. A sampler chooses the configurations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ripieno.deprecation import find_renamed


@dataclass(frozen=True)
class TrialStep:
    """Step that trains `trial` from the end of epoch `start` to the end of epoch `stop`; `start` 0: a new trial."""

    trial: int
    start: int
    stop: int


class Scheduler(Protocol):
    """Pure decisions: the same calls in the same order give the same ones. New trials are numbered from 0 as issued.

    A scheduler may have a method `rank(step)`, called before `start`: the rank of the trial among the results for which
    it goes on, from 1, and their number, or None. It is shown and kept.

    The priority of a result is its loss; in a search with several objectives it is computed from all results at the
    same epoch, and changes as others arrive: see `ripieno.search.objectives`. A scheduler may have a method
    `set_priorities(epoch, priorities)`, called before each `tell`: the priorities of results at `epoch`, by trial.
    """

    started: int
    """number of trials issued"""

    def candidates(self) -> Iterator[TrialStep]:
        """Yield the possible next steps, most urgent first; empty: wait, or the search has ended."""

    def start(self, step: TrialStep) -> None:
        """Record that `step`, one of the candidates, was started."""

    def tell(self, step: TrialStep, priority: float | None) -> None:
        """Record the `priority` of `step` (smaller is better); None: it failed."""


if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(globals(), {"Decision": "TrialStep"}, name)
