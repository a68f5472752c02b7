"""Scheduler of generations: one starts when all results of the previous one have arrived. Pure decisions."""

from __future__ import annotations

from collections.abc import Iterator

from ripieno.errors import SearchError
from ripieno.search.scheduler import TrialStep

POPULATION = 12
"""Trials of a generation, and number of parents of the next."""


class Generations:
    """Scheduler for evolutionary samplers: every trial trains to its last epoch, `population` trials at a time.

    Slots in excess of the trials left in a generation are idle until it ends: the price of complete parents. Raises
    SearchError for numbers below one.
    """

    def __init__(self, epochs: int, population: int = POPULATION, trials: int | None = None) -> None:
        if min(epochs, population, 1 if trials is None else trials) < 1:
            raise SearchError(
                f"{trials} trials of {epochs} epochs, {population} per generation: all must be at least 1"
            )
        self.started = 0
        self.trials = trials
        self._epochs = epochs
        self._population = population
        self._finished = 0

    def candidates(self) -> Iterator[TrialStep]:
        """Yield a new trial if the previous generation is complete."""
        previous = self.started // self._population * self._population  # trials of the generations before its own
        if self._finished >= previous and (self.trials is None or self.started < self.trials):
            yield TrialStep(self.started, 0, self._epochs)

    def start(self, step: TrialStep) -> None:
        """Record that `step`, the only candidate, was started."""
        assert step.trial == self.started, f"trial {step.trial} issued, {self.started} is next"
        self.started += 1

    def tell(self, step: TrialStep, priority: float | None) -> None:  # noqa: ARG002
        """Record that `step` ended or failed; only the sampler uses its result."""
        self._finished += 1
