"""Search of a data set: makes the library of a run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ripieno import clock, files
from ripieno.config import pick
from ripieno.data_kinds import DATA_KINDS
from ripieno.durations import check_duration
from ripieno.errors import SearchError, require
from ripieno.library import Library
from ripieno.notes import Notes
from ripieno.pipeline.budgets import Budget
from ripieno.pipeline.doubted_figures import best_member_notes
from ripieno.pipeline.execution import ExecutionConfig, PoolName
from ripieno.pipeline.preparation import DataOptions, DataSource, kept_seed, prepare
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.resources import sleep_while_waiting, usable_cores
from ripieno.tasks.metrics import dashed_name
from ripieno.tasks.registry import kind_of
from ripieno.types import ColumnKind, Configuration, DataKind, Folds, Input, Job, loss_key

if TYPE_CHECKING:
    from ripieno.search.algorithms import Algorithm
    from ripieno.search.progress import Snapshot

FreeMembers = Literal["on", "off"]


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search. What is None is as in the run, or the default of `ripieno.search.settings.Settings`."""

    hours: float | None = None
    """bound of the search; one hour without `trials`"""
    trials: int | None = None
    """bound of the number of trials"""
    epochs: int | None = None
    space: str = "auto"
    """name or JSON file; `auto`: that of the run, else `series` of series, `table` of tables, `resnet` of images on a
    GPU and `resnet-small` on a CPU, of masks `segmentation` and `segmentation-small`; of networks of timm, which a
    family or `weights` name, `timm` or `timm-small`, and of smp `segmentation-pretrained`"""
    algorithm: str | Path | Algorithm | None = None
    """a name, `SCHEDULER+SAMPLER`, a JSON file or the record: see `ripieno.search.Algorithm`"""
    step: float | None = None
    """ratio of the epochs of two rungs; the algorithm's"""
    keep: int | None = None
    """one in `keep` trials of a rung trains on to the next; the algorithm's"""
    eta: int | None = None
    """sets `step` and `keep`"""
    seed: int | None = None
    constraint: Sequence[str] | None = None
    """bounds of trials, such as `bytes<=4e6`, `latency<=0.010` or `accuracy>=0.8`; None: the run's, or none"""
    family: str | None = None
    """`timm:NAME`, a network of timm, `unet` or `smp:ARCHITECTURE/ENCODER` for segmentation, one of series or tables,
    such as `lite` or `mlp`, or the user's own model family (`module:function`), whose code is run"""
    trainer: str | None = None
    """`network`, `trees:lightgbm`, `trees:random-forest`, `trees:extra-trees`, or the user's own (`module:Class`),
    whose code is run"""
    free: FreeMembers = "on"
    """`on`: a new search begins with free members, trees that take seconds; see `ripieno.pipeline.free_members`"""
    without: str | Sequence[str] | None = None
    """changes that augmentation leaves out, such as `flip` or `rotate`: see `ripieno.search.augmentation_space`"""
    weights: str | Path | None = None
    """pretrained weights of networks of timm: a .safetensors file, a folder of NAME.safetensors, or `hub`, which
    allows their download; None: those of the run, else none"""
    augmentation: str | Path | None = None
    """JSON file of the policy of augmentation that all networks train with, such as one of `augment`; None: that of
    the run, else the space's"""
    budget: Budget | None = None
    """what an ensemble may cost, as `select` takes it; see `ripieno.pipeline.search_budget`"""
    objective: str | Sequence[str] | None = None
    """what is made small, such as `loss,flops`; the loss alone where the run has no other: see
    `ripieno.search.objectives`"""


def tune(
    data: DataSource | None = None,
    run: str | Path = "run",
    *,
    hours: float | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    space: str = SearchOptions.space,
    algorithm: str | Path | Algorithm | None = None,
    step: float | None = None,
    keep: int | None = None,
    eta: int | None = None,
    seed: int | None = None,
    slots: int | None = None,
    pool: PoolName = ExecutionConfig.pool,
    device: str = ExecutionConfig.device,
    per_device: int = ExecutionConfig.per_device,
    address: str = ExecutionConfig.address,
    cpus: float = ExecutionConfig.cpus,
    limit: float | None = None,
    constraint: str | Sequence[str] | None = None,
    family: str | None = None,
    trainer: str | None = None,
    free: FreeMembers = SearchOptions.free,
    without: str | Sequence[str] | None = None,
    weights: str | Path | None = None,
    augmentation: str | Path | None = None,
    budget: Budget | None = None,
    objective: str | Sequence[str] | None = None,
    size: int | None = None,
    split: tuple[float, float, float] | None = None,
    metric: str | None = None,
    folds: Folds | None = None,
    skip_bad: bool | None = None,
    task: str | None = None,
    target: str | Sequence[str] | None = None,
    kind: DataKind | None = None,
    series: str | None = None,
    time: str | None = None,
    value: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    column: Mapping[str, ColumnKind] | None = None,
    split_by: str | None = None,
    leave_out: str | Path | None = None,
    ignore: str | int | Sequence[str | int] | None = None,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> Library:
    """Search hyperparameters on `data` and keep every network trained in the folder `run` (section 2.1).

    Bounded by `hours`, by `trials`, or by both; one hour when neither is given. Called again on the same run it goes on
    where it was stopped, however it was stopped: the run holds its data and its settings, so `data` and all that makes
    the search may be left out, and what is given must be the same (data that were moved or copied are). The bounds may
    change; without any, those of the last start apply again. For a new run, what is None is the default of `Settings`
    (`ripieno.search.settings`) or of `ripieno.data.load_dataset`.

    Bounded by trials alone, the result of a search depends on the seed only. The space is by default `series` for
    series, `table` for tables, `resnet` for images on a GPU, `resnet-small` on a CPU; of networks of timm, which
    `family` (`timm:NAME`) or `weights` names, `timm`, `timm-small`. A `family` of series (`lite`, ...) or of tables
    (`mlp`, `mlp-periodic`) is one network of `series` or `table`. A segmentation has the families `unet`, in the spaces
    `segmentation` and `segmentation-small`, and `smp:ARCHITECTURE/ENCODER`, in `segmentation-pretrained`. Another
    `family` (`module:function`) is your own code, which is run; such a family named only by a space's file or by the
    run is refused. So is `trainer` (`module:Class`), a class with the methods of `ripieno.train.trainer.Trainer`;
    built-in ones are `network`, `trees:lightgbm`, `trees:random-forest` and `trees:extra-trees`. A search of small
    inputs begins with some trees, which are members of no trial; `free` ("off") leaves them out. `without` names
    changes that the augmentation of networks leaves out ("flip", "rotate", ...); a built-in space leaves out flips
    where mirrored training images look like other classes. `weights` are the pretrained weights of networks of timm: a
    .safetensors file, a folder of NAME.safetensors, or "hub", which allows their download; without any these networks
    start random. `augmentation` is the JSON file of a policy, such as one that `augment` wrote: all networks train
    with it, and the run keeps it. `algorithm` is a name, a pair such as `asha+tpe`, a JSON file or an `Algorithm`
    (`ripieno.search`); `step` and `keep` replace its two, and `eta` sets both. `pool`, `device`, `slots` and the next
    four parameters say where trials train: see `ExecutionConfig`. Without `slots`, a profile decides how many trials
    share this machine, when it takes at most 2 % of `hours`: see `pipeline.trial_packing`. `constraint` is a bound
    such as `bytes<=4e6` or `latency<=0.010`, or several. Of networks of the built-in families, `parameters`, `flops`
    and `bytes` (here four times the parameters) are known before training: a configuration that breaks such a bound is
    drawn again. `seconds`, `latency` and `memory` are measured after the first rung of each trial, `train_seconds` and
    scores such as `accuracy` are known after each. Trials that break what is measured rank last, and samplers learn
    it.
    `objective` names what is searched for besides the loss, as in "loss,flops": costs (train_seconds, flops,
    parameters, bytes, seconds, latency, memory), metrics of the task, or numbers that your own trainer reports. Trials
    that no other one dominates are then promoted.
    `folds` (2 to 20) validate by predictions out of fold instead of a validation split, which suits small data sets:
    each trial trains a network a fold, and the one that is kept on all training samples; see
    `ripieno.data.load_dataset`. `notes` receives remarks on the data and on that decision; without it they are logged.
    `task` (classification, multilabel, regression or segmentation) and `kind` (image, series or table) are inferred
    when None; `target` names the columns of targets, and `series`, `time` and `value` those of a table of series. Of a
    table with a row for each sample, `drop` names columns that are left out, `column` gives kinds of columns (number,
    category, date) in place of the inferred ones, and `split_by` names the column by whose order or groups the rows are
    split. `ignore` names values and classes of masks whose pixels are neither trained on nor scored, besides 255.
    `leave_out` is a list of samples by file name or row, such as that of `suspects`: they are left out of training and
    validation, and stay in the test split. `metric` is the score that is shown; trials are ranked by the loss of the
    task. With a `budget`, as `select` takes it (seconds, or a mapping of `seconds`, `memory`, `latency`, `parameters`,
    `flops` and `bytes`), no network is trained that exceeds it alone. Parameters, FLOPs and bytes of networks follow
    from their configurations. The other kinds are predicted from a dozen networks with random weights that are measured
    on this machine's CPU before the search, and what is predicted above twice the budget is not trained.

    Raises DataError for data that cannot be used or are not there, SearchError for settings or data that contradict the
    run's.
    """
    given = locals()
    given["constraint"] = [constraint] if isinstance(constraint, str) else constraint
    options = pick(SearchOptions, given), pick(ExecutionConfig, given), pick(DataOptions, given)
    return search_library(data, run, *options, progress, notes, watch)


def search_library(
    data: DataSource | None,
    run: str | Path,
    search: SearchOptions,
    execution: ExecutionConfig,
    data_options: DataOptions,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> Library:
    """Run a search as `tune` describes it and return its library."""
    hours, trials = search.hours, search.trials
    library = Library(run, (search.family,) if search.family else ())
    if (library.path / "lock").exists():
        with files.locked(library.path / "lock", "another search"):
            pass  # refused at once, not when all is loaded
    sleep_while_waiting()  # before PyTorch is loaded
    from ripieno.data.augmentation_policy import check_kind, read_policy
    from ripieno.data.dataset import find_dataset
    from ripieno.data.load import check_arguments
    from ripieno.pipeline.augmentation_fit import fit_augmentation
    from ripieno.pipeline.cost_samples import find_cost_models
    from ripieno.pipeline.free_members import add_free_members
    from ripieno.pipeline.live_front import FrontThread
    from ripieno.pipeline.search_budget import plan_budget, read_budget
    from ripieno.pipeline.space_choice import AUTO, choose_space, default_space
    from ripieno.pipeline.time_fit import fit_to_time, measure_pace
    from ripieno.pipeline.timm_space import cheapest_backbone
    from ripieno.pipeline.trainer_check import check_trainer
    from ripieno.pipeline.trial_packing_benchmark import find_packing, sample_configurations
    from ripieno.pipeline.weights import fetch_weights, find_weights, keep_backbones
    from ripieno.search import run_search
    from ripieno.search.algorithms import change_algorithm, check_algorithm, find_mismatch
    from ripieno.search.augmentation_space import leave_out, parse_without
    from ripieno.search.built_in_spaces import fit_space, is_built_in_space
    from ripieno.search.constraints import check_bounds, parse_constraints, split_constraints
    from ripieno.search.objectives import MEASURED, check_objectives, parse_objectives
    from ripieno.search.policy_space import fix_policy, has_policy, policy_words
    from ripieno.search.settings import Settings, check_same, kept_settings, resolve_settings
    from ripieno.search.space import backbone_names
    from ripieno.train import TrainingConfig, train_job

    require("torch")
    from ripieno.models.build import built_in_family
    from ripieno.models.cell_config import FAMILY as CELL
    from ripieno.models.configuration_costs import configuration_costs
    from ripieno.models.family_config import fitting_families, network_group
    from ripieno.train.member_costs import KINDS
    from ripieno.train.registry import find_reports, find_unit

    if execution.pool == "ray":
        require("ray")
    notes = Notes() if notes is None else notes
    on_gpu = execution.on_gpu()
    before = kept_settings(library.path / "run.json")
    if search.free not in get_args(FreeMembers):
        raise SearchError(f"free is {search.free!r}: it must be {' or '.join(get_args(FreeMembers))}")
    kept = find_dataset(library.dataset_path)
    known_task = data_options.task if kept is None else kept.task.kind
    found, trainer = choose_space(
        search.space, search.family, search.trainer, search.weights, before, on_gpu, known_task
    )
    if search.augmentation is not None and trainer != "network":
        raise SearchError(f"trainer {trainer} takes no augmentation: leave it out")
    policy = None if search.augmentation is None else read_policy(search.augmentation, kept.kind if kept else None)
    if policy is not None and before is None:
        found = fix_policy(found, policy)
    elif policy is not None and before is not None and not has_policy(before.space, policy):
        raise SearchError(
            f"{library.path} contains a search with {policy_words(before.space)}, not with that of "
            f"{search.augmentation}: leave augmentation out to resume, or use another folder with --run"
        )
    depends_on_data = (None, CELL)  # other families have one space for a device
    is_default = before is None and search.family in depends_on_data and (search.space, search.weights) == (AUTO, None)
    without = parse_without(search.without)
    if without and trainer != "network":
        raise SearchError(f"without leaves out augmentation of networks, which trainer {trainer} has not: omit it")
    found = leave_out(found, without) if without else found
    if trainer == "network" and kept is not None:
        found = fit_space(found, kept.kind, kept.task)
    if hours is None and trials is None and before is not None:
        hours, trials = before.hours, before.trials
    if hours is None and trials is None:
        hours = 1.0
    if hours is not None:
        hours = check_duration(hours, "hours", unit=3600, error=SearchError)
    budget = read_budget(search.budget)
    check_arguments(*(getattr(data_options, n) for n in ("size", "split", "metric", "task", "kind", "folds")))
    seed = kept_seed(library) if search.seed is None and before is None else search.seed
    settings = before or Settings(found)
    algorithm = change_algorithm(settings.algorithm, search.algorithm, search.eta, search.step, search.keep)
    given = {"epochs": search.epochs, "seed": seed, "budget": budget or None}
    asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    asked |= {"algorithm": algorithm, "trials": trials, "hours": hours}
    if search.constraint:
        asked["constraints"] = tuple(search.constraint)
    asked |= {} if search.objective is None else {"objective": parse_objectives(search.objective)}
    settings = dataclasses.replace(settings, **asked)
    check_algorithm(settings.algorithm)
    if mismatch := find_mismatch(settings.algorithm, len(settings.objective)):
        notes.append(mismatch)
    used = None if before is None else before.weights
    sources = find_weights(search.weights, found, library.path, used, notes)
    if before is not None:
        weights = fetch_weights(sources, library.path, used, progress)
        kept_space = keep_backbones(found, sources)
        check_same(library.path, before, dataclasses.replace(settings, space=kept_space, weights=weights))
    seconds = None if hours is None else 3600 * hours
    deadline = None if seconds is None else clock.now() + seconds
    dataset = prepare(data, library, dataclasses.replace(data_options, seed=settings.seed), progress, notes)
    if is_default and trainer == "network":
        found = default_space(trainer, on_gpu, search.family, dataset.kind, dataset.task.kind)
        found = found if policy is None else fix_policy(found, policy)
    if policy is not None:
        check_kind(policy, dataset.kind, f"policy {search.augmentation}")
    if (base := built_in_family(found.family)) and base not in DATA_KINDS[dataset.kind].families:
        known = "".join(f"{name}, " for name in fitting_families(dataset.kind, dataset.task))
        raise SearchError(
            f"the data are of kind {dataset.kind}, which family {found.family} does not take: use {known}your own with "
            "--family (family=), or trees with --trainer, or read the data in another run with another --kind"
        )
    if base and base not in (fitting := fitting_families(dataset.kind, dataset.task)):
        raise SearchError(
            f"family {found.family} has no networks for task {dataset.task.kind}: use {', '.join(fitting)}, or your "
            "own, with --family (family=)"
        )
    if network_group(found.family) == "table":
        require("sklearn")  # fits the preparation of the networks
    weight = functools.partial(estimate_epoch_cost, found.family, dataset.input, len(dataset.rows("train")))
    is_built_in = False
    if trainer == "network":
        found = leave_out(found, without) if without else found
        is_built_in, found = is_built_in_space(found), fit_space(found, dataset.kind, dataset.task)
        if before is None and is_built_in:
            found, remarks = fit_augmentation(found, dataset)
            notes.extend(remarks)
        found = keep_backbones(found, sources)
        if before is None and is_built_in and seconds is not None and not on_gpu:
            found, epochs, remarks = fit_to_time(
                found, settings.epochs, dataset, weight, seconds * len(usable_cores()),
                pretrained=bool(sources), epochs_given=search.epochs is not None,
                pace=functools.partial(measure_pace, library, found, weight, seconds, len(dataset.rows("train"))),
            )  # fmt: skip
            settings = dataclasses.replace(settings, epochs=epochs)
            notes.extend(remarks)
    limits = predicted = None
    if settings.budget:
        plan = plan_budget(
            settings.budget, found, dataset.input, dataset.task, settings.seed,
            functools.partial(
                find_cost_models, library, found, dataset, settings.seed, seconds, settings.trials, progress
            ),
            is_network=trainer == "network", may_narrow=before is None and is_built_in,
        )  # fmt: skip
        found, limits, predicted = plan.space, plan.limits, plan.costs
        notes.extend(plan.notes)
    if before is None:  # not earlier: the time and the budget may leave out most backbones
        names = backbone_names(found)
        weights = fetch_weights({n: s for n, s in sources.items() if n in names}, library.path, used, progress)
    settings = dataclasses.replace(settings, space=found, weights=weights, metric=loss_key(dataset.task))
    costs = None
    if trainer == "network":
        costs = functools.partial(configuration_costs, found.family, input=dataset.input, task=dataset.task)
    bounds, measured = split_constraints(parse_constraints(settings.constraints), found, costs)
    check_bounds(bounds.joined(limits), found, settings.seed)
    # objectives that a configuration does not tell are measured, too
    known_costs = () if costs is None else tuple(costs(sample_configurations(found, settings.seed, 1)[0]))
    unknown = [name for name in settings.objective if name not in known_costs]
    task = TrainingConfig(
        run=library.path.resolve(),
        dataset=library.dataset_path.resolve(),
        family=found.family,
        epochs=settings.epochs,
        seed=settings.seed,
        device="cuda" if on_gpu else "cpu",
        deadline=deadline,
        trainer=trainer,
        measured=tuple(kind for kind in KINDS if any(c.name == kind for c in measured) or kind in unknown),
        weights=weights,
    )
    metrics = (*kind_of(dataset.task).metrics,)
    reports = () if trainer == "network" else find_reports(task)
    check_objectives(settings.objective, metrics, reports)
    check_names([c.name for c in measured], metrics, reports)
    asked_for = *((n, "objective") for n in settings.objective), *((c.name, "constraint") for c in measured)
    if seconds is None and (timed := [f"{what} {name}" for name, what in asked_for if name in MEASURED]):
        notes.append(
            f"{' and '.join(timed)} {'are' if len(timed) > 1 else 'is'} measured: another search with the same seed "
            "may choose other trials"
        )
    if trainer != "network":
        settings = dataclasses.replace(settings, unit=find_unit(task))
        notes.extend(check_trainer(task, sample_configurations(found, settings.seed, 1)[0], dataset))
    elif execution.auto_packing and (pack := find_packing(task, found, weight, execution.gpus(), seconds, progress)):
        execution = dataclasses.replace(execution, pack=pack[0])
        notes.append(pack[1])
    task = dataclasses.replace(task, threads=execution.threads(), spare=execution.spare())
    work = functools.partial(train_job, task)
    with execution.open(work, library.logs_path, functools.partial(trial_progress, library)) as workers:
        with files.locked(library.path / "lock", "another search"):
            # before free members, so that a start after a kill continues with the same settings
            resolve_settings(library.path / "run.json", settings, workers.slots, deadline)
        if search.free == "on" and not kind_of(dataset.task).is_pixelwise:
            backbone = cheapest_backbone(found, weights) if weights else None
            add_free_members(library, task, dataset, seconds, progress, notes, backbone, settings.budget)
        fronts = FrontThread(library, budget=settings.budget, costs=predicted)
        try:
            last = run_search(
                library, settings, workers, weight=weight, deadline=deadline, watch=watch, fronts=fronts, costs=costs,
                limits=limits,
            )  # fmt: skip
        finally:
            fronts.close()
        if fronts.problem:
            notes.append(f"the live front ended before the search: {fronts.problem}")
    trained = any(member.trial >= 0 for member in library.members())
    if not trained and last.ended == "trials":  # with the same seed they would all fail again
        remedy = f"See {library.logs_path}, fix the cause and use another folder with --run."
        raise SearchError(f"no member was trained, all {last.jobs} jobs failed. {remedy}")
    if not trained:
        raise SearchError(f"no member was trained in the time given: see {library.logs_path}, or give more --hours")
    notes += best_member_notes(library, progress, notes)
    return library


def check_names(names: Sequence[str], metrics: Sequence[str], reports: Sequence[str]) -> None:
    """Raise SearchError for a constraint of a number that is no cost, none of `metrics`, and none of `reports`."""
    from ripieno.train.member_costs import KINDS

    known = (*KINDS, "train_seconds", *map(dashed_name, metrics), *reports)
    for name in names:
        if dashed_name(name) not in map(dashed_name, known):
            raise SearchError(f"constraint of {name!r}: trials have no such number; use one of {', '.join(known)}")


def constrained_budget(library: Library) -> list[str]:
    """Return the upper bounds of costs in a run's constraints as a budget of `select`: `bytes=4000000`."""
    from ripieno.library.cost_table import COUNTED, MEASURED
    from ripieno.search.constraints import parse_constraints
    from ripieno.search.settings import kept_settings

    kept = kept_settings(library.path / "run.json")
    bounds = parse_constraints(kept.constraints if kept else ())
    return [f"{c.name}={c.bound:.12g}" for c in bounds if c.sign == "<=" and c.name in (*MEASURED, *COUNTED)]


def trial_progress(library: Library, job: Job) -> int:
    """Return a number that changes with every finished epoch of the job's trial: its checkpoint's time."""
    path = library.checkpoint_path(job.trial)
    return path.stat().st_mtime_ns if path.exists() else 0


def estimate_epoch_cost(family: str, shape: Input, samples: int, configuration: Configuration) -> float:
    """Estimate the milliseconds of one epoch; results are ordered by it, reproducibly, whatever the real timing.

    Where it orders results only ratios between configurations matter, and only roughly: a wrong guess costs waiting. A
    search in a given time leaves out networks that it finds too slow, residual networks by a short timing of this
    machine: see `time_fit`.
    """
    from ripieno.models.family_config import network_megaflops, network_megavalues, training_defaults
    from ripieno.models.series_config import has_fixed_transform
    from ripieno.models.smp_config import is_smp
    from ripieno.models.timm_config import is_timm
    from ripieno.train.batching import count_passes

    configuration = {**training_defaults(family), **configuration}
    if not has_fixed_transform(family, configuration):
        samples *= count_passes(samples, int(configuration.get("epoch_samples", 0)))
    steps = samples / float(configuration.get("batch_size", 64))
    passes = 3.0  # forward and backward are three times the forward
    if is_timm(family):
        from ripieno.models.timm_network import timm_megaflops

        work = timm_megaflops(family, configuration)
        passes = {"all": 1.0, "most": 1.5}.get(str(configuration.get("frozen")), passes)
    elif is_smp(family):
        from ripieno.models.smp_network import smp_megaflops

        work = smp_megaflops(family, configuration, shape)
    elif values := network_megavalues(family, configuration, shape):
        # in units of the others; fitted to 18 networks of resnet-small on images of 48 pixels, within a sixth
        work = 0.44 * network_megaflops(family, configuration, shape) + 73.0 * values
    else:
        work = network_megaflops(family, configuration, shape)
        passes = 1.0 if has_fixed_transform(family, configuration) else passes
    # a step costs some milliseconds however small the network
    return steps * 5.0 + samples * passes * work / 20.0
