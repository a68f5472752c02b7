"""Entry point of a search: settings, lock and journal; the loop is in `driver`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ripieno import clock, files
from ripieno.cluster.pool import Pool
from ripieno.errors import require
from ripieno.library import Library
from ripieno.search.algorithms import find_algorithm, make_scheduler
from ripieno.search.progress import Snapshot, Summary
from ripieno.search.samplers import find_sampler
from ripieno.search.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from ripieno.search.driver import Weight

__all__ = ["Settings", "Snapshot", "Summary", "run_search"]


def run_search(
    library: Library,
    settings: Settings,
    pool: Pool,
    *,
    weight: Weight | None = None,
    deadline: float | None = None,
    watch: Callable[[Snapshot], None] | None = None,
    clock: Callable[[], float] = clock.now,
) -> Summary:
    """Search until all trials are done or the `deadline` (Unix seconds) is near (section 2.1).

    Started again on the same run it goes on, however it was stopped. With the virtual order (the default without a
    deadline) members and configurations depend on the settings, on `weight` and on what training gives, on nothing
    else. `weight` says what an epoch of a configuration costs, in any unit; by default all cost the same. Near the
    deadline no job starts that, at the pace of those before it, cannot finish. `watch` is called after every event and
    every second. `clock` returns Unix seconds; it is a simulated pool's own where time is simulated.

    Raises SearchError when the settings contradict the run's, when the journal cannot be read or written, or when more
    than half of the first jobs fail; RipienoError when another search holds the run; MissingExtraError when the sampler
    is not installed. On any exception, KeyboardInterrupt included, the pool is closed and the run can be started again.
    """
    require("optuna")
    from ripieno.search.driver import Driver
    from ripieno.search.journal import Journal

    try:
        with files.locked(library.path / "lock", "another search"):
            settings = resolve_settings(library.path / "run.json", settings, pool.slots, deadline)
            sampler = find_algorithm(settings.algorithm).sampler
            find_sampler(sampler)(0)  # a missing extra is missed now, not a dozen trials later
            journal = Journal(library.journal_path, settings.space, sampler, settings.seed)
            scheduler = make_scheduler(settings.algorithm, settings.epochs, settings.eta, settings.trials)
            watch = watch or no_callback
            return Driver(
                library, settings, scheduler, pool, journal, weight or uniform_cost, deadline, watch, clock
            ).run()
    except BaseException:
        pool.close(cancel=True)
        raise


def uniform_cost(_configuration: object) -> float:
    """Return the same cost for every configuration."""
    return 1.0


def no_callback(_snapshot: Snapshot) -> None:
    """Do nothing: the default callback."""
