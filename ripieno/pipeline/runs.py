"""A run on disk and its summary."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ripieno import files
from ripieno.errors import LibraryError, SelectionError
from ripieno.library import Library
from ripieno.library.backbones import BackboneRecord, find_origins
from ripieno.library.command_record import refuse_command_run
from ripieno.library.cost_table import read_cost_table
from ripieno.library.diversity import disagreement
from ripieno.reports.front_history import read_front_history
from ripieno.reports.predictions import read_predictions
from ripieno.search.predictions import PredictionChecks
from ripieno.shell_command import command
from ripieno.tasks.metrics import dashed_name
from ripieno.tasks.registry import kind_of
from ripieno.types import Allocation, Ensemble, LiveFront, Member, Task
from ripieno.types import ProgressFunction as ProgressFunction


def no_progress(what: str, done: int, total: int) -> None:
    """Ignore progress; the default callback."""


def open_run(run: str | Path | Library, *, writing: bool = False, trusted: Sequence[str] = ()) -> Library:
    """Open the library of a run, which then holds the `trusted` families too.

    Raises LibraryError when the folder holds no run.

    With `writing`, raises RipienoError when the folder is not writable: before the work, not after it.
    """
    library = run if isinstance(run, Library) else Library(run)
    if trusted:
        library = copy.copy(library)  # the caller's own trusts no more than before
        library.trusted += tuple(trusted)
    refuse_command_run(library.path)
    if not (library.path / "library").is_dir():
        if (library.path / "bundle.json").exists():
            raise LibraryError(f"{library.path} is a bundle, not a run: give the folder that `ripieno tune` made")
        raise LibraryError(f"{library.path} is not a run: `{command('tune', 'DATA', run=library.path)}` makes one")
    if writing:
        files.check_writable(library.path)
    return library


def refuse_policies(task: Task | None, what: str) -> None:
    """Raise SelectionError where `task` is of policies: `what` needs predictions of samples, which they do not have."""
    if task is not None and kind_of(task).has_returns:
        raise SelectionError(
            f"{what} needs predictions of samples, policies have returns of episodes: "
            "`ripieno predict BUNDLE --environment NAME` runs some"
        )


def task_of(library: Library) -> Task | None:
    """Return the task of the members of a run; None where it has none."""
    return next((member.task for member in library.members()), None)


def default_kind(members: Sequence[Member]) -> str:
    """Return the kind of a plain cost: seconds, or the single imported kind of members that cannot be run."""
    kinds = {kind for m in members for kind in m.costs}
    measurable = any(m.format != "predictions" for m in members)
    return next(iter(kinds)) if len(kinds) == 1 and not measurable else "seconds"


@dataclass(frozen=True)
class RunSummary:
    """Contents of a run."""

    path: Path
    metric: str
    """the displayed score, `accuracy` or `macro-f1`"""
    members: tuple[Member, ...]
    """by validation cross-entropy, the best first"""
    cost_kind: str
    """kind of `costs`: `seconds`, or the single imported kind of members that cannot be run"""
    costs: Mapping[str, float]
    """measured on `device` or imported, by member; with the backbone of a member that shares one"""
    device: str
    """kind of device, empty when nothing was measured"""
    diversity: Mapping[str, float]
    """mean share of validation samples on which a member's class differs from that of another"""
    ensembles: tuple[Ensemble, ...]
    allocations: tuple[Allocation, ...]
    backbones: Mapping[str, float] = field(default_factory=dict)
    """cost of each backbone that members share, by its id: an ensemble pays it once"""
    weights: Mapping[str, BackboneRecord] = field(default_factory=dict)
    """pretrained weights that members began from, by `NAME-DIGEST`"""
    folds: int = 0
    """number of folds by which the members were validated; 0: by a validation split"""
    live_front: LiveFront | None = None
    """last front of ensembles of the search; None of runs without one"""
    policies: tuple[str, ...] = ()
    """learnt policies of augmentation that members trained with, as in their configurations"""
    predictions: PredictionChecks = field(default_factory=lambda: PredictionChecks({}))
    """what the sampler of the search predicted of trials, with the results"""


def show(run: str | Path | Library) -> RunSummary:
    """Return a summary of a run: members, costs, ensembles, allocations. Raises LibraryError when there is no run."""
    library = open_run(run)
    device = library.usual_device()
    members = library.members()
    kind = default_kind(members)
    table = read_cost_table(library, (kind,), device if kind == "seconds" else "")
    return RunSummary(
        path=library.path,
        metric=metric_of(library),
        members=tuple(sorted(members, key=lambda m: (m.loss, m.id))),
        cost_kind=kind,
        costs=table.alone(kind),
        device=device,
        diversity=disagreement(library),
        ensembles=tuple(library.ensembles()),
        allocations=tuple(library.allocations()),
        backbones={backbone: costs[kind] for backbone, costs in table.shared.items()},
        weights=find_origins(library.path, members),
        folds=folds_of(library),
        live_front=next(iter(read_front_history(library.journal_path)[-1:]), None),
        predictions=read_predictions(library.journal_path),
        policies=tuple(sorted({str(m.configuration["policy"]) for m in members if m.configuration.get("policy")})),
    )


def folds_of(library: Library) -> int:
    """Return the number of folds of the run's data set; 0 where it has none."""
    from ripieno.data.dataset import find_dataset

    dataset = find_dataset(library.dataset_path)
    return 0 if dataset is None else dataset.fold_count


def metric_of(library: Library) -> str:
    """Return the displayed score of a run: that of its data set's task, without one of its members' task."""
    from ripieno.data.dataset import find_dataset

    dataset = find_dataset(library.dataset_path)
    tasks = [dataset.task] if dataset is not None else [member.task for member in library.members()[:1]]
    return next((dashed_name(kind_of(task).metric_of(task)) for task in tasks), "accuracy")
