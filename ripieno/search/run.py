"""Entry points of a search: on a pool of workers, or simulated in virtual time; the loop is in `driver`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ripieno import clock, files
from ripieno.cluster.pool import Pool
from ripieno.cluster.simulated_pool import Curve, SimulatedPool
from ripieno.errors import require
from ripieno.library import Library
from ripieno.search.algorithms import check_algorithm, find_algorithm, make_sampler
from ripieno.search.constraints import (
    Bounds,
    Constraint,
    KnownCosts,
    check_bounds,
    parse_constraints,
    split_constraints,
)
from ripieno.search.progress import FrontSource, Snapshot, Summary
from ripieno.search.settings import Settings, resolve_settings
from ripieno.search.warm_start import COLD, WarmStart
from ripieno.types import JobResult

if TYPE_CHECKING:
    from ripieno.search.driver import Weight


def run_search(
    library: Library,
    settings: Settings,
    pool: Pool,
    *,
    weight: Weight | None = None,
    deadline: float | None = None,
    watch: Callable[[Snapshot], None] | None = None,
    clock: Callable[[], float] = clock.now,
    fronts: FrontSource | None = None,
    costs: KnownCosts | None = None,
    limits: Bounds | None = None,
    warm_start: WarmStart = COLD,
) -> Summary:
    """Search until all trials are done or the `deadline` (Unix seconds) is near (section 2.1).

    Started again on the same run it goes on, however it was stopped. With the virtual order (the default without a
    deadline) members and configurations depend on the settings, on `weight` and on what training gives, on nothing
    else. `weight` says what an epoch of a configuration costs, in milliseconds or any unit; by default all cost the
    same. Near the deadline no job starts that, at the pace of those before it, cannot finish; the pool is closed and
    jobs that still run are ended 5 s after it, once the library has a member. `watch` is called after
    every event and every second. `clock` returns Unix seconds; it is a simulated pool's own where time is simulated.
    `fronts` gives the snapshots their fronts of ensembles, which the journal keeps. `costs` returns what is known of a
    configuration before training, by name: the constraints of the settings on these bound what is drawn. So do
    `limits`, which may bound predictions. Objectives may be among the costs. The search begins with the portfolio of
    `warm_start`, which every start must be given.

    Raises SearchError when the settings contradict the run's, when no configuration meets the constraints, when the
    journal cannot be read or written, or when more than half of the first jobs fail or lack a number that is an
    objective; RipienoError when another search holds the run; MissingExtraError when the sampler is not installed. On
    any exception, KeyboardInterrupt included, the pool is closed and the run can be started again.
    """
    require("optuna")
    from ripieno.search.driver import OVERTIME, Driver
    from ripieno.search.journal import Journal

    try:
        with files.locked(library.path / "lock", "another search"):
            settings = resolve_settings(library.path / "run.json", settings, pool.slots, deadline)
            check_algorithm(settings.algorithm)  # a missing extra is missed now, not a dozen trials later
            sampler = make_sampler(find_algorithm(settings.algorithm))
            bounds, measured = _constraints(settings, costs, limits)
            path, names = library.journal_path, settings.objective
            journal = Journal(path, settings.space, sampler, settings.seed, bounds, measured, names, warm_start)
            told = watch, clock, fronts, measured, costs
            driver = Driver(library, settings, pool, journal, weight, deadline, *told, overtime=OVERTIME)
            return driver.run()
    except BaseException:
        pool.close(cancel=True)
        raise


def _constraints(
    settings: Settings, costs: KnownCosts | None, limits: Bounds | None = None
) -> tuple[Bounds, tuple[Constraint, ...]]:
    """Return the constraints of a search by whether they are known before training. Raises SearchError."""
    bounds, measured = split_constraints(parse_constraints(settings.constraints), settings.space, costs)
    bounds = bounds.joined(limits)
    check_bounds(bounds, settings.space, settings.seed)
    return bounds, measured


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
    weight: Weight | None = None,
    decision_clock: Callable[[], float] | None = None,
    costs: KnownCosts | None = None,
    warm_start: WarmStart = COLD,
) -> Simulation:
    """Run the search of `settings` on `slots` workers in virtual time, for at most `seconds` of it.

    `curve` returns the loss of a configuration after a number of epochs and the seconds they take, and, for objectives,
    a dict of other numbers by name; `train_seconds` are those of the curve unless it is in there. See `SimulatedPool`
    for `overhead` and `decision_clock`. `weight` is the search's estimate of an epoch's cost, as in `run_search`, and
    `costs` are those known before training; it begins with the portfolio of `warm_start`.
    Results are reported in order of arrival unless `settings` give another order. Nothing is written to disk: the
    journal is in memory.

    Raises SearchError for invalid settings, when no configuration meets the constraints, or when more than half of the
    first jobs fail.
    """
    require("optuna")
    from ripieno.search.driver import Driver
    from ripieno.search.journal import Journal

    outcomes: list[JobResult] = []

    def watch(snapshot: Snapshot) -> None:
        outcomes.extend(snapshot.finished)

    settings = replace(settings, order=settings.order or "arrival", window=settings.window or 2 * slots)
    bounds, measured = _constraints(settings, costs)
    sampler = make_sampler(find_algorithm(settings.algorithm))
    names = settings.objective
    journal = Journal(None, settings.space, sampler, settings.seed, bounds, measured, names, warm_start)
    pool = SimulatedPool(
        curve, slots, metric=settings.metric, overhead=overhead, deadline=seconds, decision_clock=decision_clock
    )
    library = Library("simulated")  # never written: a new search reads no members
    driver = Driver(library, settings, pool, journal, weight, seconds, watch, pool.clock, None, measured, costs)
    summary = driver.run()
    return Simulation(summary, tuple(outcomes), pool.clock())
