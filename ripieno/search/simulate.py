"""Simulation of a search in virtual time, on any number of workers, from learning curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ripieno.cluster.simulated import Curve, SimulatedPool
from ripieno.errors import require
from ripieno.library import Library
from ripieno.search.algorithms import find_algorithm
from ripieno.search.progress import Snapshot, Summary
from ripieno.search.settings import Settings
from ripieno.types import Configuration, JobResult


@dataclass(frozen=True)
class Simulation:
    """Result of a simulated search, in seconds of virtual time."""

    summary: Summary
    outcomes: tuple[JobResult, ...]
    """all jobs, in the order in which they ended"""
    seconds: float
    """end of the last job"""


def simulate(
    settings: Settings,
    curve: Curve,
    slots: int,
    *,
    seconds: float | None = None,
    overhead: float = 0.0,
    weight: Callable[[Configuration], float] | None = None,
) -> Simulation:
    """Run the search of `settings` on `slots` workers in virtual time, for at most `seconds` of it.

    `curve` returns the loss of a configuration after a number of epochs and the seconds they take; see `SimulatedPool`
    for `overhead`. `weight` is the search's estimate of an epoch's cost, as in `run_search`. Results are reported in
    order of arrival unless `settings` give another order. Nothing is written to disk: the journal is in memory.

    Raises SearchError for invalid settings or when more than half of the first jobs fail.
    """
    require("optuna")
    from ripieno.search.algorithms import make_scheduler
    from ripieno.search.driver import Driver
    from ripieno.search.journal import Journal
    from ripieno.search.run import uniform_cost

    outcomes: list[JobResult] = []

    def watch(snapshot: Snapshot) -> None:
        outcomes.extend(snapshot.finished)

    settings = replace(settings, order=settings.order or "arrival", window=settings.window or 2 * slots)
    journal = Journal(None, settings.space, find_algorithm(settings.algorithm).sampler, settings.seed)
    pool = SimulatedPool(curve, slots, metric=settings.metric, overhead=overhead, deadline=seconds)
    library = Library("simulated")  # never written: a new search reads no members
    scheduler = make_scheduler(settings.algorithm, settings.epochs, settings.eta, settings.trials)
    summary = Driver(
        library, settings, scheduler, pool, journal, weight or uniform_cost, seconds, watch, pool.clock
    ).run()
    return Simulation(summary, tuple(outcomes), pool.clock())
