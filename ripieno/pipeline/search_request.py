"""The request of a search: its options read against what the run keeps, before the data are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ripieno import clock
from ripieno.data.augmentation_policy import Policy, read_policy
from ripieno.data.dataset import find_dataset
from ripieno.data.load import check_arguments
from ripieno.durations import check_duration
from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.models.cell_config import FAMILY as CELL
from ripieno.pipeline.preparation import DataOptions, kept_seed
from ripieno.pipeline.runs import ProgressFunction
from ripieno.pipeline.search_budget import read_budget
from ripieno.pipeline.search_options import FreeMembers, SearchOptions
from ripieno.pipeline.space_choice import AUTO, choose_space
from ripieno.pipeline.warm_start import NO_SOURCES, PastSources, check_sources, read_sources
from ripieno.pipeline.weights import WeightsSource, fetch_weights, find_weights, keep_backbones
from ripieno.search.algorithms import GROWTH_OPTIONS, change_algorithm, check_algorithm, find_algorithm, find_mismatch
from ripieno.search.augmentation_space import leave_out, parse_without
from ripieno.search.built_in_spaces import fit_space
from ripieno.search.growth import GROWING, GROWING_SAMPLER, find_growth
from ripieno.search.objectives import parse_objectives
from ripieno.search.policy_space import fix_policy, has_policy, keep_policy, policy_words
from ripieno.search.settings import Settings, check_same, kept_settings
from ripieno.search.space import Space, distributions
from ripieno.search.warm_start import check_same_space

DEFAULT_HOURS = 1.0
"""Hours of a search without any bound."""


@dataclass(frozen=True)
class SpaceRequest:
    """The space that a search asks for, before it is fitted to the data."""

    space: Space
    trainer: str
    is_default: bool
    """the data decide the space"""
    policy: Policy | None = None
    """policy of augmentation that all networks train with"""
    without: tuple[str, ...] = ()
    """changes that augmentation leaves out"""
    family: str | None = None
    """family that is asked for, or that the algorithm needs"""

    @property
    def is_network(self) -> bool:
        """Training by the networks' own trainer."""
        return self.trainer == "network"


@dataclass(frozen=True)
class SearchRequest:
    """The search that is asked for, which agrees with what the run keeps."""

    library: Library
    options: SearchOptions
    before: Settings | None
    """settings of the run's last start; None: a new search"""
    chosen: SpaceRequest
    settings: Settings
    """settings as asked for; their space, weights, metric and unit follow from the data"""
    on_gpu: bool
    sources: Mapping[str, WeightsSource]
    """pretrained weights by backbone"""
    weights: tuple[str, ...]
    """weights in the run; none in a new search, whose space may leave backbones out"""
    seconds: float | None
    """time of the search; None: no bound"""
    deadline: float | None
    """end of the search in Unix seconds"""
    past: PastSources = NO_SOURCES
    """earlier searches from which a new one learns"""

    @property
    def is_new(self) -> bool:
        """First start of a search, which may fit its space."""
        return self.before is None


def read_request(
    library: Library,
    options: SearchOptions,
    data_options: DataOptions,
    on_gpu: bool,
    progress: ProgressFunction,
    notes: list[str],
) -> SearchRequest:
    """Return the search that `options` ask for in the run of `library`. Its time begins now.

    `notes` receives remarks on the algorithm and on weights. Raises SearchError for options that are wrong or that
    contradict the run, DataError for options of the data that are wrong.
    """
    before = kept_settings(library.path / "run.json")
    if options.free not in get_args(FreeMembers):
        raise SearchError(f"free is {options.free!r}: it must be {' or '.join(get_args(FreeMembers))}")
    chosen = read_space(library, options, data_options.task, before, on_gpu)
    settings = read_settings(library, options, data_options, before, chosen.space)
    check_algorithm(settings.algorithm)
    past = NO_SOURCES
    if before is None:
        past = read_sources(options.from_, options.history)
        for search in () if chosen.is_default and chosen.is_network else past.named:  # the data decide the space
            check_same_space(chosen.space, search)
    else:
        check_sources(library.path, before, options.from_)
    check_growth(settings)
    if mismatch := find_mismatch(settings.algorithm, len(settings.objective)):
        notes.append(mismatch)
    used = None if before is None else before.weights
    sources = find_weights(options.weights, chosen.space, library.path, used, notes)
    weights: tuple[str, ...] = ()
    if before is not None:
        weights = fetch_weights(sources, library.path, used, progress)
        space = keep_backbones(chosen.space, sources)
        check_same(library.path, before, dataclasses.replace(settings, space=space, weights=weights))
    seconds = None if settings.hours is None else 3600 * settings.hours
    deadline = None if seconds is None else clock.now() + seconds
    return SearchRequest(library, options, before, chosen, settings, on_gpu, sources, weights, seconds, deadline, past)


def read_space(
    library: Library, options: SearchOptions, task: str | None, before: Settings | None, on_gpu: bool
) -> SpaceRequest:
    """Return the space of a search: the options', or else that of the run. `task` is the kind of task, if it is given.

    Raises SearchError for options that contradict each other or the run, DataError for a policy that is wrong.
    """
    kept = find_dataset(library.dataset_path)
    known_task = task if kept is None else kept.task.kind
    family = options.family
    if (options.space, family, options.trainer, options.weights, before) == (AUTO, None, None, None, None):
        grows = options.algorithm is not None and find_algorithm(options.algorithm).sampler == GROWING_SAMPLER
        family = CELL if grows else None
    space, trainer = choose_space(options.space, family, options.trainer, options.weights, before, on_gpu, known_task)
    is_network = trainer == "network"
    if options.augmentation is not None and not is_network:
        raise SearchError(f"trainer {trainer} takes no augmentation: leave it out")
    policy = None
    if options.augmentation is not None:
        policy = read_policy(options.augmentation, kept.kind if kept else None)
        space = fix_policy(space, policy)
        if before is not None and has_policy(before.space, policy):
            space = keep_policy(space, before.space)
        elif before is not None:
            raise SearchError(
                f"{library.path} contains a search with {policy_words(before.space)}, not with that of "
                f"{options.augmentation}: leave augmentation out to resume, or use another folder with --run"
            )
    without = parse_without(options.without)
    if without and not is_network:
        raise SearchError(f"without leaves out augmentation of networks, which trainer {trainer} has not: omit it")
    if without:
        space = leave_out(space, without)
    if is_network and kept is not None:
        space = fit_space(space, kept.kind, kept.task)
    depends_on_data = family in (None, CELL)  # other families have one space for a device
    is_default = before is None and depends_on_data and (options.space, options.weights) == (AUTO, None)
    return SpaceRequest(space, trainer, is_default, policy, without, family)


def check_growth(settings: Settings) -> None:
    """Raise SearchError for an algorithm that grows configurations in a space whose configurations do not grow."""
    space = settings.space
    if find_algorithm(settings.algorithm).sampler == GROWING_SAMPLER and find_growth(distributions(space)) is None:
        needed = (
            "give it blocks from 1, and each slot of all blocks every input and the same operators"
            if space.family in GROWING
            else f"use --family {' or '.join(GROWING)}"
        )
        raise SearchError(
            f"algorithm popnas grows cells block by block, which space {space.name} of family {space.family} cannot: "
            f"{needed}, or use another algorithm"
        )


def read_settings(
    library: Library, options: SearchOptions, data_options: DataOptions, before: Settings | None, space: Space
) -> Settings:
    """Return the settings of a search of `space`: the options', else those of the run, else the defaults.

    Without any bound a resumed search has those of its last start, and a new one an hour. Raises SearchError for
    settings that are wrong, DataError for options of the data that are wrong.
    """
    hours, trials = options.hours, options.trials
    if hours is None and trials is None and before is not None:
        hours, trials = before.hours, before.trials
    if hours is None and trials is None:
        hours = DEFAULT_HOURS
    if hours is not None:
        hours = check_duration(hours, "hours", unit=3600, error=SearchError)
    budget = read_budget(options.budget)
    check_arguments(*(getattr(data_options, n) for n in ("size", "split", "metric", "task", "kind", "folds")))
    seed = kept_seed(library) if options.seed is None and before is None else options.seed
    settings = before or Settings(space)
    growth = {name: getattr(options, name) for name in GROWTH_OPTIONS}
    algorithm = change_algorithm(
        settings.algorithm, options.algorithm, options.eta, options.step, options.keep, **growth
    )
    given = {"epochs": options.epochs, "seed": seed, "budget": budget or None}
    asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    asked |= {"algorithm": algorithm, "trials": trials, "hours": hours}
    if options.constraint:
        asked["constraints"] = tuple(options.constraint)
    if options.objective is not None:
        asked["objective"] = parse_objectives(options.objective)
    return dataclasses.replace(settings, **asked)
