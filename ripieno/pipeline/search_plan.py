"""The plan of a search: all that its run needs, decided and checked before the first trial."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from ripieno.errors import SearchError
from ripieno.models.configuration_costs import configuration_costs
from ripieno.models.policy_config import FAMILY as POLICY
from ripieno.models.policy_config import PolicyConfig
from ripieno.pipeline.execution import ExecutionConfig
from ripieno.pipeline.runs import ProgressFunction
from ripieno.pipeline.search_request import SearchRequest
from ripieno.pipeline.space_fit import FittedSpace, fit_search_space
from ripieno.pipeline.trainer_check import check_trainer
from ripieno.pipeline.trial_packing_benchmark import find_packing, sample_configurations
from ripieno.pipeline.warm_start import kept_warm_start, plan_warm_start
from ripieno.pipeline.weights import fetch_weights
from ripieno.profiles.devices import local_devices
from ripieno.profiles.energy import open_counter
from ripieno.search.algorithms import find_algorithm
from ripieno.search.constraints import (
    Bounds,
    Constraint,
    KnownCosts,
    check_bounds,
    parse_constraints,
    split_constraints,
)
from ripieno.search.growth import GROWING_SAMPLER, find_growth
from ripieno.search.objectives import MEASURED, check_objectives
from ripieno.search.settings import Settings
from ripieno.search.space import Space, backbone_names, distributions
from ripieno.search.warm_start import COLD, WarmStart
from ripieno.tasks.metrics import dashed_name
from ripieno.tasks.registry import kind_of
from ripieno.train import TrainingConfig
from ripieno.train.member_costs import KINDS
from ripieno.train.registry import find_reports, find_unit
from ripieno.types import Dataset, loss_key


@dataclass(frozen=True, eq=False)
class SearchPlan:
    """All that the run of a search needs."""

    request: SearchRequest
    dataset: Dataset
    fitted: FittedSpace
    settings: Settings
    """settings as they are kept: complete, with the fitted space"""
    config: TrainingConfig
    execution: ExecutionConfig
    costs: KnownCosts | None
    """costs of a configuration that are known before training; None: of a trainer that is not the networks'"""
    warm_start: WarmStart = COLD
    """what the search takes from earlier runs"""


def plan_search(
    request: SearchRequest,
    dataset: Dataset,
    execution: ExecutionConfig,
    progress: ProgressFunction,
    notes: list[str],
) -> SearchPlan:
    """Return the plan of a search; `notes` receives what it leaves out or decides by a measurement.

    Raises SearchError for bounds that no configuration meets, and for numbers that trials do not have.
    """
    check_energy(request, execution, notes)
    fitted = fit_search_space(request, dataset, progress, notes)
    weights = request.weights
    if request.is_new:  # not earlier: the time and the budget may leave out most backbones
        names = backbone_names(fitted.space)
        sources = {name: source for name, source in request.sources.items() if name in names}
        weights = fetch_weights(sources, request.library.path, None, progress)
    settings = dataclasses.replace(
        request.settings, space=fitted.space, epochs=fitted.epochs, weights=weights, metric=loss_key(dataset.task)
    )
    if request.before is not None:
        warm_start = kept_warm_start(request.library, request.before)
    else:
        warm_start = plan_warm_start(request.past, settings.space, settings.epochs, settings.trials, notes, progress)
        settings = dataclasses.replace(settings, warm_start=warm_start.sources)
    costs: KnownCosts | None = None
    if request.chosen.is_network:
        costs = functools.partial(configuration_costs, fitted.space.family, input=dataset.input, task=dataset.task)
    measured = check_constraints(settings, fitted, costs)
    config = training_config(request, settings, measured_costs(settings, costs, measured))
    check_numbers(config, dataset, settings.objective, [c.name for c in measured])
    if request.is_new and (line := first_candidates(settings)):
        notes.append(line)
    if request.seconds is None:
        notes.extend(timing_notes(settings.objective, measured))
    plan = SearchPlan(request, dataset, fitted, settings, config, execution, costs, warm_start)
    return plan_networks(plan, progress, notes) if request.chosen.is_network else plan_trainer(plan, notes)


def first_candidates(settings: Settings) -> str:
    """Return a line on the first trials of an algorithm whose configurations grow; empty: it is another one."""
    algorithm, growth = find_algorithm(settings.algorithm), find_growth(distributions(settings.space))
    if algorithm.sampler != GROWING_SAMPLER or growth is None:
        return ""
    every = len(growth.first())
    count = min(every, algorithm.first or every)
    return f"popnas begins with {'all' if count == every else f'{count} of'} {every} cells of one block, drawn evenly"


def check_energy(request: SearchRequest, execution: ExecutionConfig, notes: list[str]) -> None:
    """Add a note where trials share the counter of the joules that a search asks for.

    Raises EngineError, before anything is measured, where this machine has none and trials train on it.
    """
    settings = request.settings
    constraints = {c.name for c in parse_constraints(settings.constraints)}
    asked = {*settings.objective} | constraints
    if "joules" in (settings.budget or {}):
        open_counter(local_devices("cpu")[0])  # where sample networks are measured
    if "joules" not in asked or execution.pool == "ray":
        return
    open_counter(local_devices("cuda" if request.on_gpu else "cpu")[0])
    notes.append(
        "joules are read from a counter of the whole device: trials that run meanwhile disturb it; with --slots 1 none "
        "does"
    )


def check_constraints(settings: Settings, fitted: FittedSpace, costs: KnownCosts | None) -> tuple[Constraint, ...]:
    """Return the constraints that are measured. Raises SearchError when no configuration meets the other bounds."""
    bounds, measured = find_bounds(settings, fitted, costs)
    check_bounds(bounds, settings.space, settings.seed)
    return measured


def find_bounds(
    settings: Settings, fitted: FittedSpace, costs: KnownCosts | None
) -> tuple[Bounds, tuple[Constraint, ...]]:
    """Return what bounds the configurations of a search, by constraints and budget, and the measured constraints."""
    bounds, measured = split_constraints(parse_constraints(settings.constraints), settings.space, costs)
    return bounds.joined(None if fitted.budget is None else fitted.budget.limits), measured


def measured_costs(settings: Settings, costs: KnownCosts | None, constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """Return the kinds of cost that trials measure: what `constraints` need, and objectives not known before."""
    known = () if costs is None else tuple(costs(sample_configurations(settings.space, settings.seed, 1)[0]))
    wanted = {c.name for c in constraints} | {name for name in settings.objective if name not in known}
    return tuple(kind for kind in KINDS if kind in wanted)


def training_config(request: SearchRequest, settings: Settings, measured: tuple[str, ...]) -> TrainingConfig:
    """Return the configuration of all trials of a search."""
    return TrainingConfig(
        run=request.library.path.resolve(),
        dataset=request.library.dataset_path.resolve(),
        family=settings.space.family,
        epochs=settings.epochs,
        seed=settings.seed,
        device="cuda" if request.on_gpu else "cpu",
        deadline=request.deadline,
        trainer=request.chosen.trainer,
        measured=measured,
        weights=settings.weights,
    )


def check_numbers(
    config: TrainingConfig, dataset: Dataset, objectives: Sequence[str], constraints: Sequence[str]
) -> None:
    """Raise SearchError for an objective or a measured constraint of a number that trials do not have."""
    metrics = (*kind_of(dataset.task).metrics,)
    reports = () if config.trainer == "network" else find_reports(config)
    check_objectives(objectives, metrics, reports)
    check_names(constraints, metrics, reports)


def check_names(names: Sequence[str], metrics: Sequence[str], reports: Sequence[str]) -> None:
    """Raise SearchError for a constraint of a number that is no cost, none of `metrics`, and none of `reports`."""
    known = (*KINDS, "train_seconds", *map(dashed_name, metrics), *reports)
    for name in names:
        if dashed_name(name) not in map(dashed_name, known):
            raise SearchError(f"constraint of {name!r}: trials have no such number; use one of {', '.join(known)}")


def timing_notes(objectives: Sequence[str], constraints: Sequence[Constraint]) -> list[str]:
    """Return a line on objectives and constraints that are measured, which no seed repeats; none without them."""
    asked_for = *((name, "objective") for name in objectives), *((c.name, "constraint") for c in constraints)
    timed = [f"{what} {name}" for name, what in asked_for if name in MEASURED]
    if not timed:
        return []
    return [
        f"{' and '.join(timed)} {'are' if len(timed) > 1 else 'is'} measured: another search with the same seed "
        "may choose other trials"
    ]


def plan_trainer(plan: SearchPlan, notes: list[str]) -> SearchPlan:
    """Return the plan with the unit of a trainer that is not the networks', which is checked on a few samples."""
    settings = dataclasses.replace(plan.settings, unit=find_unit(plan.config))
    sampled = sample_configurations(settings.space, settings.seed, 1)[0]
    notes.extend(check_trainer(plan.config, sampled, plan.dataset))
    if plan.config.trainer == POLICY and plan.request.is_new:
        notes.append(step_note(settings.space))
    return with_threads(dataclasses.replace(plan, settings=settings))


def step_note(space: Space) -> str:
    """Return a line on the steps of the environment that one step of a search for policies is."""
    steps = space.fixed.get("steps", PolicyConfig.steps)
    one = (
        f"{steps:,}"
        if isinstance(steps, int) and "steps" not in space.ranges
        else "a number that each trial chooses of"
    )
    return f"a step of the search is {one} steps of the environment"


def plan_networks(plan: SearchPlan, progress: ProgressFunction, notes: list[str]) -> SearchPlan:
    """Return the plan with the number of trials that share this machine, where the user has not said it."""
    execution, fitted = plan.execution, plan.fitted
    if execution.auto_packing and (
        pack := find_packing(
            plan.config,
            fitted.space,
            fitted.weight,
            execution.gpus(),
            plan.request.seconds,
            progress,
            find_bounds(plan.settings, fitted, plan.costs)[0].filter,
        )
    ):
        execution = dataclasses.replace(execution, pack=pack[0])
        notes.append(pack[1])
    return with_threads(dataclasses.replace(plan, execution=execution))


def with_threads(plan: SearchPlan) -> SearchPlan:
    """Return the plan with what a trial has of this machine as its execution gives it."""
    execution = plan.execution
    threads, spare, sharing = execution.threads(), execution.spare(), execution.sharing
    config = dataclasses.replace(plan.config, threads=threads, spare=spare, sharing=sharing)
    return dataclasses.replace(plan, config=config)
