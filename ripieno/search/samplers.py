"""Samplers of configurations for new trials: Optuna samplers, created for every trial from its seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.errors import SearchError, require

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from ripieno.search.in_memory_study import InMemoryStudy


def _gp(seed: int) -> BaseSampler:
    require("torch")
    from ripieno.search.gaussian import OneThreadGPSampler

    return OneThreadGPSampler(seed=seed, warn_independent_sampling=False)


def _genetic(seed: int) -> BaseSampler:
    from ripieno.search.genetic import GeneticSampler

    return GeneticSampler(seed)


def _smac(seed: int) -> BaseSampler:
    require("smac")
    from ripieno.search.smac import SmacSampler

    return SmacSampler(seed)


MakeSampler = Callable[[int], "BaseSampler"]
"""Factory of a sampler from a trial's seed. A sampler may read all trials of its study, but keeps no state."""
SAMPLERS: dict[str, MakeSampler] = {
    "random": lambda seed: require("optuna.samplers").RandomSampler(seed=seed),
    "tpe": lambda seed: require("optuna.samplers").TPESampler(seed=seed, multivariate=False),
    "multivariate-tpe": lambda seed: require("optuna.samplers").TPESampler(seed=seed, multivariate=True),
    "gp": _gp,
    "genetic": _genetic,
    "smac": _smac,
}
"""Samplers by name; add custom ones here."""


def find_sampler(name: str) -> MakeSampler:
    """Return the factory of the sampler called `name`. Raises SearchError that lists the known names."""
    if name not in SAMPLERS:
        raise SearchError(f"no sampler {name!r}; there are: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def trial_seed(seed: int, trial: int) -> int:
    """Return the seed of a trial's sampler, so that a resumed search neither repeats nor skips configurations."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])


def sample(make: MakeSampler, view: InMemoryStudy, seed: int) -> dict[str, Any]:
    """Choose a value of every range for the next trial of `view`, which holds the earlier trials."""
    study, new = view.study(), view.new()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that a sampler is experimental
        sampler = make(trial_seed(seed, new.number))
        joint = sampler.infer_relative_search_space(study, new)
        values = sampler.sample_relative(study, new, joint)
        return {
            key: values[key] if key in values else sampler.sample_independent(study, new, key, choice)
            for key, choice in view.ranges.items()
        }
