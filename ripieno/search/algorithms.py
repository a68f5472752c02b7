"""Search algorithms by name: each pairs a scheduler (trial and epochs) with a sampler (configuration)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from ripieno.errors import SearchError
from ripieno.search.asha import Asha, hyperband, rungs
from ripieno.search.generations import Generations
from ripieno.search.samplers import SAMPLERS, find_sampler
from ripieno.search.scheduler import Scheduler

MakeScheduler = Callable[[int, int, int | None], Scheduler]
"""Factory of a scheduler; arguments: maximum epochs of a trial, eta, maximum number of trials."""
SCHEDULERS: dict[str, MakeScheduler] = {
    "full": lambda epochs, eta, trials: Asha(((epochs,),), eta, trials),
    "asha": lambda epochs, eta, trials: Asha((rungs(epochs, eta),), eta, trials),
    "hyperband": lambda epochs, eta, trials: Asha(hyperband(epochs, eta), eta, trials),
    "asha-stopping": lambda epochs, eta, trials: Asha((rungs(epochs, eta),), eta, trials, stopping=True),
    "hyperband-stopping": lambda epochs, eta, trials: Asha(hyperband(epochs, eta), eta, trials, stopping=True),
    "generations": lambda epochs, _eta, trials: Generations(epochs, trials=trials),
}
"""Schedulers by name.

`full` trains every trial to its last epoch. `asha` has one bracket, `hyperband` all of Hyperband's; their `-stopping`
variants stop trials for good instead of pausing them. `generations` runs a dozen trials at a time.
"""


@dataclass(frozen=True)
class Algorithm:
    """Names of a scheduler and a sampler."""

    scheduler: str
    sampler: str


ALGORITHMS = {
    "hyperband": Algorithm("hyperband", "random"),
    "asha": Algorithm("asha", "random"),
    "random": Algorithm("full", "random"),
    "bohb": Algorithm("hyperband", "multivariate-tpe"),
    "tpe": Algorithm("full", "tpe"),
    "gp": Algorithm("full", "gp"),
    "smac": Algorithm("full", "smac"),
    "genetic": Algorithm("generations", "genetic"),
}
"""Algorithms by name; any other pair is written `SCHEDULER+SAMPLER`, as in `hyperband+gp`."""


def find_algorithm(name: str) -> Algorithm:
    """Return the algorithm called `name` or `scheduler+sampler`. Raises SearchError that lists the known names."""
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    scheduler, plus, sampler = name.partition("+")
    if not plus:
        raise SearchError(
            f"no algorithm {name!r}; there are: {', '.join(ALGORITHMS)}, or a scheduler ({', '.join(SCHEDULERS)}) "
            f"and a sampler ({', '.join(SAMPLERS)}) as in hyperband+tpe"
        )
    if scheduler not in SCHEDULERS:
        raise SearchError(f"no scheduler {scheduler!r}; there are: {', '.join(SCHEDULERS)}")
    find_sampler(sampler)
    return Algorithm(scheduler, sampler)


def check_algorithm(name: str) -> None:
    """Raise SearchError if the algorithm is unknown, MissingExtraError if a package it needs is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that a sampler is experimental
        find_sampler(find_algorithm(name).sampler)(0)
