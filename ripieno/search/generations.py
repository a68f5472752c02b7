"""Trials in generations: the next one starts when all results of the last are in. Decides only."""

from __future__ import annotations

from collections.abc import Iterator

from ripieno.errors import SearchError
from ripieno.search.scheduler import Decision

POPULATION = 12
"""Trials of a generation, and parents of the next."""


class Generations:
    """Every trial trains to its last epoch, `population` at a time: a `Scheduler` for samplers that breed.

    Slots beyond the trials left in a generation wait for its end: that is the price of parents that are all known.
    Raises SearchError for numbers below one.
    """

    def __init__(self, epochs: int, population: int = POPULATION, trials: int | None = None) -> None:
        if min(epochs, population, 1 if trials is None else trials) < 1:
            raise SearchError(f"{trials} trials of {epochs} epochs, {population} a generation: all must be at least 1")
        self.started = 0
        self.trials = trials
        self._epochs = epochs
        self._population = population
        self._told = 0

    def options(self) -> Iterator[Decision]:
        """A new trial, if the generation before its own is complete."""
        born = self.started // self._population * self._population
        if self._told >= born and (self.trials is None or self.started < self.trials):
            yield Decision(self.started, 0, self._epochs)

    def issue(self, decision: Decision) -> None:
        """`decision`, the option there was, is being carried out."""
        assert decision.trial == self.started, f"trial {decision.trial} issued, {self.started} is next"
        self.started += 1

    def tell(self, decision: Decision, loss: float | None) -> None:  # noqa: ARG002
        """`decision` ended, well or not: its loss is the sampler's business."""
        self._told += 1
