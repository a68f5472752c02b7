"""The space of a search, fitted to its data, its time and its budget."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

from ripieno.data.augmentation_policy import check_kind
from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import SearchError, require
from ripieno.models.build import built_in_family
from ripieno.models.configuration_costs import KNOWN, configuration_costs
from ripieno.models.family_config import fitting_families, network_group
from ripieno.models.policy_config import FAMILY as POLICY
from ripieno.pipeline.augmentation_fit import fit_augmentation
from ripieno.pipeline.cost_samples import find_cost_models
from ripieno.pipeline.epoch_cost import estimate_epoch_cost
from ripieno.pipeline.runs import ProgressFunction
from ripieno.pipeline.search_budget import SearchBudget, plan_budget
from ripieno.pipeline.search_request import SearchRequest
from ripieno.pipeline.space_choice import default_space
from ripieno.pipeline.time_fit import fit_to_time, measure_pace
from ripieno.pipeline.weights import keep_backbones
from ripieno.resources import usable_cores
from ripieno.search.augmentation_space import leave_out
from ripieno.search.built_in_spaces import fit_policy_space, fit_space, is_built_in_space
from ripieno.search.constraints import Bounds, Constraint, parse_constraints, split_constraints
from ripieno.search.policy_space import fix_policy
from ripieno.search.space import Space
from ripieno.tasks.registry import kind_of
from ripieno.train.registry import TRAINERS
from ripieno.types import Configuration, Dataset


@dataclass(frozen=True, eq=False)
class FittedSpace:
    """The space of a search as it is searched."""

    space: Space
    epochs: int
    """maximum number of epochs of a trial, which the time may reduce"""
    weight: Callable[[Configuration], float]
    """estimate of the milliseconds of an epoch"""
    budget: SearchBudget | None = None
    """bounds by the budget; None: there is none"""
    may_narrow: bool = False
    """the space may still lose configurations: it is built in, and the search is new"""


def fit_search_space(
    request: SearchRequest, dataset: Dataset, progress: ProgressFunction, notes: list[str]
) -> FittedSpace:
    """Return the space of a search, fitted to its data, its time and its budget; `notes` receives what was left out.

    Raises SearchError for a space that cannot be fitted, DataError for a policy of another kind of data.
    """
    check_policy_trainer(request.chosen.trainer, dataset)
    space = find_data_space(request, dataset)
    check_family(space.family, dataset)
    if space.family == POLICY:
        space = fit_policy_space(space, dataset.task)
    weight = functools.partial(
        estimate_epoch_cost,
        space.family,
        dataset.input,
        len(dataset.rows("train")),
        pixel_classes=len(dataset.task.names) if kind_of(dataset.task).is_pixelwise else 0,
    )
    fitted = FittedSpace(space, request.settings.epochs, weight)
    if request.chosen.is_network:
        fitted = fit_to_data(request, dataset, fitted, notes)
        if fitted.may_narrow and request.seconds is not None and not request.on_gpu:
            fitted = fit_to_hours(request, dataset, fitted, request.seconds, notes)
    return fit_to_bounds(request, dataset, fitted, progress, notes) if request.settings.budget else fitted


def find_data_space(request: SearchRequest, dataset: Dataset) -> Space:
    """Return the space of a request; that of the kind of data and the task where nothing else decides it."""
    chosen, space = request.chosen, request.chosen.space
    if chosen.is_default and chosen.is_network:
        space = default_space(chosen.trainer, request.on_gpu, chosen.family, dataset.kind, dataset.task.kind)
        space = space if chosen.policy is None else fix_policy(space, chosen.policy)
    if chosen.policy is not None:
        check_kind(chosen.policy, dataset.kind, f"policy {request.options.augmentation}")
    return space


def check_policy_trainer(trainer: str, dataset: Dataset) -> None:
    """Raise SearchError where a built-in trainer does not train for an environment, or the data are of none."""
    if dataset.environment and trainer in TRAINERS and trainer != POLICY:
        raise SearchError(
            f"trainer {trainer} fits models to data, but {dataset.name} is an environment, whose policies trainer "
            f"{POLICY} finds: leave trainer, family and space out"
        )
    if trainer == POLICY and not dataset.environment:
        raise SearchError(
            f"trainer {POLICY} finds policies for an environment, but the data are of a {dataset.task.kind}: give one, "
            "as in `ripieno tune gym:CartPole-v1 --task policy`"
        )


def check_family(family: str, dataset: Dataset) -> None:
    """Raise SearchError when a built-in `family` does not take the data or the task; MissingExtraError for tables."""
    fitting = fitting_families(dataset.kind, dataset.task)
    base = built_in_family(family)
    if base and base not in DATA_KINDS[dataset.kind].families:
        known = "".join(f"{name}, " for name in fitting)
        raise SearchError(
            f"the data are of kind {dataset.kind}, which family {family} does not take: use {known}your own with "
            "--family (family=), or trees with --trainer, or read the data in another run with another --kind"
        )
    if base and base not in fitting:
        raise SearchError(
            f"family {family} has no networks for task {dataset.task.kind}: use {', '.join(fitting)}, or your "
            "own, with --family (family=)"
        )
    if network_group(family) == "table":
        require("sklearn")  # fits the preparation of the networks


def fit_to_data(request: SearchRequest, dataset: Dataset, fitted: FittedSpace, notes: list[str]) -> FittedSpace:
    """Return a space of networks with what the data, their task and the weights at hand allow."""
    space = leave_out(fitted.space, request.chosen.without) if request.chosen.without else fitted.space
    may_narrow = request.is_new and is_built_in_space(space)
    space = fit_space(space, dataset.kind, dataset.task)
    if may_narrow:
        space, remarks = fit_augmentation(space, dataset)
        notes.extend(remarks)
    space = keep_backbones(space, request.sources)
    return dataclasses.replace(fitted, space=space, may_narrow=may_narrow)


def fit_to_hours(
    request: SearchRequest, dataset: Dataset, fitted: FittedSpace, seconds: float, notes: list[str]
) -> FittedSpace:
    """Return a space without networks, and with epochs, that are too slow for a search of `seconds` on this machine."""
    samples = len(dataset.rows("train"))
    allow = counted_bounds(request, dataset, fitted.space).filter
    space, epochs, remarks = fit_to_time(
        fitted.space,
        fitted.epochs,
        dataset,
        fitted.weight,
        seconds * len(usable_cores()),
        pretrained=bool(request.sources),
        epochs_given=request.options.epochs is not None,
        pace=functools.partial(measure_pace, request.library, fitted.space, fitted.weight, seconds, samples, allow),
        allow=allow,
    )
    notes.extend(remarks)
    return dataclasses.replace(fitted, space=space, epochs=epochs)


def counted_bounds(request: SearchRequest, dataset: Dataset, space: Space) -> Bounds:
    """Return the bounds of the configurations of `space`, by constraints and budget, that need no measurement."""
    settings = request.settings
    costs = functools.partial(configuration_costs, space.family, input=dataset.input, task=dataset.task)
    budget = [Constraint(kind, "<=", bound) for kind, bound in (settings.budget or {}).items() if kind in KNOWN]
    return split_constraints([*parse_constraints(settings.constraints), *budget], space, costs)[0]


def fit_to_bounds(
    request: SearchRequest, dataset: Dataset, fitted: FittedSpace, progress: ProgressFunction, notes: list[str]
) -> FittedSpace:
    """Return a space narrowed to a search's budget where few networks fit it, and the bounds by the budget."""
    settings = request.settings
    find_models = functools.partial(
        find_cost_models,
        request.library,
        fitted.space,
        dataset,
        settings.seed,
        request.seconds,
        settings.trials,
        progress,
        energy="joules" in (settings.budget or {}),
    )
    budget = plan_budget(
        settings.budget or {},
        fitted.space,
        dataset.input,
        dataset.task,
        settings.seed,
        find_models,
        is_network=request.chosen.is_network,
        may_narrow=fitted.may_narrow,
    )
    notes.extend(budget.notes)
    return dataclasses.replace(fitted, space=budget.space, budget=budget)
