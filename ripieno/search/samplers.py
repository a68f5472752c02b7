"""Samplers of configurations for new trials: Optuna samplers, created for every trial from its seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
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


def _forest(seed: int, random_share: float = 0.25, candidates: int = 350, learner: str = "extra-trees") -> BaseSampler:
    require("sklearn")
    from ripieno.search.forest import ForestSampler

    return ForestSampler(seed, random_share, candidates, learner)


def _popnas(
    seed: int,
    random_share: float = 0.0,
    candidates: int = 600,
    learner: str = "extra-trees",
    first: int = 32,
    beam: int = 24,
    macro: str = "along",
    time_learner: str = "ridge",
) -> BaseSampler:
    require("sklearn")
    from ripieno.search.popnas import PopnasSampler

    return PopnasSampler(seed, random_share, candidates, learner, first, beam, macro, time_learner)


def _genetic(seed: int) -> BaseSampler:
    from ripieno.search.genetic import GeneticSampler

    return GeneticSampler(seed)


def _nsga2(seed: int) -> BaseSampler:
    from ripieno.search.nsga import NsgaTwoSampler

    return NsgaTwoSampler(seed=seed)


def _nsga3(seed: int) -> BaseSampler:
    from ripieno.search.nsga import NsgaThreeSampler

    return NsgaThreeSampler(seed=seed)


def _smac(seed: int) -> BaseSampler:
    require("smac")
    from ripieno.search.smac import SmacSampler

    return SmacSampler(seed)


def _tpe(seed: int, candidates: int = 24, multivariate: bool = False) -> BaseSampler:
    kind = require("optuna.samplers").TPESampler
    sampler: BaseSampler = kind(seed=seed, multivariate=multivariate, n_ei_candidates=candidates)
    return sampler


def _multivariate_tpe(seed: int, candidates: int = 24) -> BaseSampler:
    return _tpe(seed, candidates, multivariate=True)


MakeSampler = Callable[..., "BaseSampler"]
"""Factory of a sampler from a trial's seed. A sampler may read all trials of its study, but keeps no state.

Its other arguments are the options of `Algorithm` that the sampler has, such as `candidates`. Their defaults are the
sampler's. It need not know `random_share`: `bind_sampler` draws that share of the trials at random. If it has
that argument, it draws them itself.
"""
SAMPLERS: dict[str, MakeSampler] = {
    "random": lambda seed: require("optuna.samplers").RandomSampler(seed=seed),
    "tpe": _tpe,
    "multivariate-tpe": _multivariate_tpe,
    "forest": _forest,
    "popnas": _popnas,
    "gp": _gp,
    "genetic": _genetic,
    "smac": _smac,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "parego-tpe": _multivariate_tpe,
    "parego-gp": _gp,
}
"""Samplers by name; add custom ones here."""
SEVERAL = ("random", "tpe", "multivariate-tpe", "forest", "popnas", "gp", "genetic", "nsga2", "nsga3")
"""Samplers that learn from several objectives. The others see one: a random scalarisation of them (ParEGO)."""


def find_sampler(name: str) -> MakeSampler:
    """Return the factory of the sampler called `name`. Raises SearchError that lists the known names."""
    if name not in SAMPLERS:
        raise SearchError(f"no sampler {name!r}; there are: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def complete_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` with the defaults of the sampler called `name` for those that are None.

    Raises SearchError for an unknown sampler, and for an option that it does not have.
    """
    known = {"random_share": 0.0} | _defaults(find_sampler(name))
    for option, value in options.items():
        if value is not None and option not in known:
            raise SearchError(f"sampler {name} has no option {option}: leave it out")
    return {option: known.get(option) if value is None else value for option, value in options.items()}


class BoundSampler:
    """Factory of a sampler from a trial's seed; `several`: it learns from several objectives."""

    def __init__(self, make: Callable[[int], BaseSampler], several: bool) -> None:
        self._make, self.several = make, several

    def __call__(self, seed: int) -> BaseSampler:
        """Return the sampler of a trial."""
        return self._make(seed)


def bind_sampler(name: str, options: Mapping[str, Any]) -> BoundSampler:
    """Return the factory of the sampler called `name` with `options`, some of which it does not have (None)."""
    make = find_sampler(name)
    known = _defaults(make)
    own = {option: value for option, value in options.items() if option in known}
    share = 0.0 if "random_share" in known else options.get("random_share") or 0.0

    def bound(seed: int) -> BaseSampler:
        # a generator of its own: the draw must not depend on what the sampler does with the seed
        if share and np.random.default_rng([seed, 1]).random() < share:
            return SAMPLERS["random"](seed)
        return make(seed, **own)

    return BoundSampler(bound, name in SEVERAL)


def _defaults(make: MakeSampler) -> dict[str, Any]:
    """Return the defaults of the options of a factory, by name."""
    try:
        parameters = list(signature(make).parameters.values())[1:]
    except ValueError:  # a built-in one
        return {}
    return {p.name: p.default for p in parameters if p.default is not Parameter.empty}


def trial_seed(seed: int, trial: int, attempt: int = 0) -> int:
    """Return the seed of a trial's sampler, so that a resumed search neither repeats nor skips configurations."""
    return int(np.random.SeedSequence([seed, trial, attempt][: 3 if attempt else 2]).generate_state(1)[0])


def sample(make: MakeSampler, view: InMemoryStudy, seed: int, attempt: int = 0) -> dict[str, Any]:
    """Choose a value of every range for the next trial of `view`, which holds the earlier trials.

    `attempt` counts the values that were refused before. A sampler for one objective sees a scalarisation of several,
    with weights of its own for every trial.
    """
    new_seed = trial_seed(seed, len(view), attempt)
    objectives = len(view.objectives)
    if objectives > 1 and not getattr(make, "several", False):
        # a generator of its own, as of the random share
        view = view.scalarized(np.random.default_rng([new_seed, 2]).dirichlet(np.ones(objectives)).tolist())
    study, new = view.study(), view.new()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that a sampler is experimental
        sampler = make(new_seed)
        joint = sampler.infer_relative_search_space(study, new)
        values = sampler.sample_relative(study, new, joint)
        return {
            key: values[key] if key in values else sampler.sample_independent(study, new, key, choice)
            for key, choice in view.ranges.items()
        }
