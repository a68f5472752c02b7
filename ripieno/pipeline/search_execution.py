"""Execution of a planned search: its pool, its free members and its trials, and the result."""

from __future__ import annotations

import functools
from collections.abc import Callable

from ripieno import files
from ripieno.cluster import Pool
from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.pipeline.doubted_figures import best_member_notes
from ripieno.pipeline.free_members import add_free_members
from ripieno.pipeline.live_front import FrontThread
from ripieno.pipeline.runs import ProgressFunction
from ripieno.pipeline.search_plan import SearchPlan
from ripieno.pipeline.timm_space import cheapest_backbone
from ripieno.pipeline.warm_start import keep_warm_start
from ripieno.search import run_search
from ripieno.search.constraints import Constraint, parse_constraints
from ripieno.search.progress import Snapshot, Summary
from ripieno.search.settings import resolve_settings
from ripieno.tasks.registry import kind_of
from ripieno.train import train_job
from ripieno.types import Job


def execute_plan(
    plan: SearchPlan, progress: ProgressFunction, notes: list[str], watch: Callable[[Snapshot], None] | None
) -> Summary:
    """Run a planned search until all trials are done or its time is over, and return its last state."""
    library = plan.request.library
    work = functools.partial(train_job, plan.config)
    with plan.execution.open(work, library.logs_path, functools.partial(trial_progress, library)) as pool:
        with files.locked(library.path / "lock", "another search"):
            if plan.request.is_new:
                keep_warm_start(library, plan.warm_start)
            # before free members, so that a start after a kill continues with the same settings
            resolve_settings(library.path / "run.json", plan.settings, pool.slots, plan.request.deadline)
        train_free_members(plan, progress, notes)
        return run_trials(plan, pool, notes, watch)


def train_free_members(plan: SearchPlan, progress: ProgressFunction, notes: list[str]) -> None:
    """Train the free members of a search, unless its options leave them out, or trees cannot do its task."""
    if plan.request.options.free != "on" or kind_of(plan.dataset.task).is_pixelwise or plan.dataset.environment:
        return
    settings = plan.settings
    backbone = cheapest_backbone(settings.space, settings.weights) if settings.weights else None
    add_free_members(
        plan.request.library,
        plan.config,
        plan.dataset,
        plan.request.seconds,
        progress,
        notes,
        backbone,
        [
            *parse_constraints(settings.constraints),
            *(Constraint(k, "<=", b) for k, b in (settings.budget or {}).items()),
        ],
    )


def run_trials(plan: SearchPlan, pool: Pool, notes: list[str], watch: Callable[[Snapshot], None] | None) -> Summary:
    """Run the trials of a search on an open `pool`, with a live front of the ensembles of its members."""
    library, budget = plan.request.library, plan.fitted.budget
    fronts = None
    if not plan.dataset.environment:  # the return of an ensemble does not follow from those of its members
        fronts = FrontThread(library, budget=plan.settings.budget, costs=None if budget is None else budget.costs)
    try:
        last = run_search(
            library,
            plan.settings,
            pool,
            weight=plan.fitted.weight,
            deadline=plan.request.deadline,
            watch=watch,
            fronts=fronts,
            costs=plan.costs,
            limits=None if budget is None else budget.limits,
            warm_start=plan.warm_start,
        )
    finally:
        if fronts is not None:
            fronts.close()
    if fronts is not None and fronts.problem:
        notes.append(f"the live front ended before the search: {fronts.problem}")
    return last


def report_result(library: Library, last: Summary, progress: ProgressFunction, notes: list[str]) -> None:
    """Add remarks on the best member of a search to `notes`. Raises SearchError when the library has no member."""
    trained = any(member.trial >= 0 for member in library.members())
    if not trained and last.ended == "trials":  # with the same seed they would all fail again
        remedy = f"See {library.logs_path}, fix the cause and use another folder with --run."
        raise SearchError(f"no member was trained, all {last.jobs} jobs failed. {remedy}")
    if not len(library):
        raise SearchError(f"no member was trained in the time given: see {library.logs_path}, or give more --hours")
    if not trained:
        notes.append("no trial finished an epoch in the time given, so the run has its free members only")
    notes += best_member_notes(library, progress, notes)


def trial_progress(library: Library, job: Job) -> int:
    """Return a number that changes with every finished epoch of the job's trial: its checkpoint's time."""
    path = library.checkpoint_path(job.trial)
    return path.stat().st_mtime_ns if path.exists() else 0
