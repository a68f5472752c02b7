"""Which configuration a new trial gets. A sampler is one of Optuna's, made anew for every trial from (seed, trial)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.errors import SearchError
from ripieno.search.space import Space, distributions

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler


def _random(seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {"random": _random}
"""Samplers by name: each makes Optuna's from a seed."""


def trial_seed(seed: int, trial: int) -> int:
    """Seed of one trial's sampler: a search that goes on neither repeats nor skips configurations."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])


def sample(name: str, study: Study, space: Space, seed: int, trial: int) -> dict[str, Any]:
    """Choose a value of every range of `space` for trial number `trial`, given the trials of `study`.

    Raises SearchError for a sampler that does not exist.
    """
    from optuna.trial import FrozenTrial, TrialState

    if name not in SAMPLERS:
        raise SearchError(f"no sampler {name!r}; there are: {', '.join(SAMPLERS)}")
    ranges = distributions(space)
    # not in the study before it is complete: a kill must not leave half a configuration
    new = FrozenTrial(
        number=trial,
        trial_id=trial,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a sampler is experimental
        sampler = SAMPLERS[name](trial_seed(seed, trial))
        joint = sampler.infer_relative_search_space(study, new)
        values = sampler.sample_relative(study, new, joint)
        return {
            key: values[key] if key in values else sampler.sample_independent(study, new, key, choice)
            for key, choice in ranges.items()
        }
