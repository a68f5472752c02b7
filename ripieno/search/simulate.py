"""A search in virtual time: how an algorithm does on any number of workers, from learning curves, within seconds."""

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
    """What a simulated search did, in seconds of its own time."""

    summary: Summary
    outcomes: tuple[JobResult, ...]
    """every job that ended, in the order they did"""
    seconds: float
    """when the last job ended"""


def simulate(
    settings: Settings,
    curve: Curve,
    slots: int,
    *,
    seconds: float | None = None,
    overhead: float = 0.0,
    weight: Callable[[Configuration], float] | None = None,
) -> Simulation:
    """Run the search that `settings` ask for on `slots` workers in virtual time, for `seconds` of it at most.

    `curve` gives the loss of a configuration after so many epochs and the seconds they take; see `SimulatedPool` for
    `overhead`. `weight` is what the search believes an epoch costs, as in `run_search`. Results count in the order in
    which they come unless `settings` say otherwise. Nothing is written to disk: the journal is in memory.

    Raises SearchError for impossible settings or when more than half of the first jobs fail.
    """
    require("optuna")
    from ripieno.search.driver import Driver
    from ripieno.search.journal import Journal
    from ripieno.search.run import scheduler_of, uniform_cost

    outcomes: list[JobResult] = []

    def watch(snapshot: Snapshot) -> None:
        outcomes.extend(snapshot.finished)

    settings = replace(settings, order=settings.order or "arrival", window=settings.window or 2 * slots)
    journal = Journal(None, settings.space, find_algorithm(settings.algorithm).sampler, settings.seed)
    pool = SimulatedPool(curve, slots, metric=settings.metric, overhead=overhead, deadline=seconds)
    nowhere = Library("simulated")  # never written: a new search looks for no members
    scheduler = scheduler_of(settings)
    summary = Driver(
        nowhere, settings, scheduler, pool, journal, weight or uniform_cost, seconds, watch, pool.clock
    ).run()
    return Simulation(summary, tuple(outcomes), pool.clock())
