"""Evolutionary sampler: children of the best trials so far, by tournament, uniform crossover and mutation.

Optuna's NSGA-II stores the generation of a trial in the study and uses COMPLETE trials only as parents. This one needs
only the results, so it works after a restart and with any scheduler.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from ripieno.search.generations import POPULATION
from ripieno.search.in_memory_study import ranked

CROSSOVER = 0.9
"""Share of the children that have two parents."""


class GeneticSampler(RandomSampler):
    """Sampler with a random first generation; later trials inherit from the `POPULATION` best trials with a result."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._random = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all ranges once there are parents, none before."""
        parents = ranked(study)
        return dict(parents[0].distributions) if trial.number >= POPULATION and len(parents) > 1 else {}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the values that the child inherits; a missing value mutates: it is drawn at random.

        Each mutates with probability 1/ranges, and one always does, so that a child almost never equals its parent.
        """
        if not search_space:
            return {}
        parents, names = ranked(study)[:POPULATION], list(search_space)
        mother, father = self._tournament(parents), self._tournament(parents)
        if self._random.random() >= CROSSOVER:
            father = mother
        mutable = [name for name in names if not search_space[name].single()] or names
        mutant = mutable[self._random.integers(len(mutable))]
        child = {}
        for name in names:
            chosen = mother if self._random.random() < 0.5 else father
            if self._random.random() >= 1 / len(names) and name != mutant:
                child[name] = chosen.params[name]
        return child

    def _tournament(self, parents: list[FrozenTrial]) -> FrozenTrial:
        """Return the better of two random `parents`, which are ranked."""
        return parents[int(self._random.integers(len(parents), size=2).min())]
