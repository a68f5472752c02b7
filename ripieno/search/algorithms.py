"""Search algorithms by name: each is a scheduler (which trial, how far) and a sampler (which configuration)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ripieno.errors import SearchError
from ripieno.search.asha import Asha, hyperband, rungs
from ripieno.search.scheduler import Scheduler

MakeScheduler = Callable[[int, int, int | None], Scheduler]
"""From the most epochs of a trial, eta, and the most trials."""


def _full(epochs: int, eta: int, trials: int | None) -> Scheduler:
    return Asha(((epochs,),), eta, trials)


def _asha(epochs: int, eta: int, trials: int | None) -> Scheduler:
    return Asha((rungs(epochs, eta),), eta, trials)


def _hyperband(epochs: int, eta: int, trials: int | None) -> Scheduler:
    return Asha(hyperband(epochs, eta), eta, trials)


SCHEDULERS: dict[str, MakeScheduler] = {"full": _full, "asha": _asha, "hyperband": _hyperband}
"""Schedulers by name: every trial to its last epoch; one bracket; all of Hyperband's brackets."""


@dataclass(frozen=True)
class Algorithm:
    """Names of a scheduler and of a sampler."""

    scheduler: str
    sampler: str


ALGORITHMS = {
    "hyperband": Algorithm("hyperband", "random"),
    "asha": Algorithm("asha", "random"),
    "random": Algorithm("full", "random"),
}
"""Algorithms by name."""


def find_algorithm(name: str) -> Algorithm:
    """The algorithm called `name`. Raises SearchError that lists those there are."""
    if name not in ALGORITHMS:
        raise SearchError(f"no algorithm {name!r}; there are: {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]
