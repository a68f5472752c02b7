"""Source -> the run's data set: prepared once, and compared with the source of later starts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ripieno import files
from ripieno.data import load_dataset, open_dataset
from ripieno.data.adapters import ExternalData
from ripieno.data.column_values import ColumnValues
from ripieno.data.dataset import check_trainable
from ripieno.data.fingerprint import Fingerprint, fingerprint
from ripieno.data.folds import validation_words
from ripieno.data.leave_out import read_leave_out
from ripieno.data.sources import ignored_values, names_of
from ripieno.data.walk import shown
from ripieno.data_kinds import DATA_KINDS
from ripieno.environments import EPISODES, environment_dataset, is_environment
from ripieno.errors import DataError, SearchError
from ripieno.library import Library
from ripieno.pipeline.environment_source import check_environment, check_named, find_environment
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.tasks.registry import kind_of
from ripieno.types import SPLITS, ColumnKind, DataKind, Dataset, Folds

DataSource = str | Path | Dataset | tuple[NDArray[Any], NDArray[Any]] | ExternalData | Mapping[str, ColumnValues]
DEFAULTS: dict[str, Any] = {
    "size": None,
    "split": None,
    "seed": 0,
    "skip_bad": False,
    "metric": None,
    "task": None,
    "target": [],
    "kind": None,
    "folds": "auto",
    "series": None,
    "time": None,
    "value": [],
    "drop": [],
    "column": {},
    "split_by": None,
    "leave_out": None,
    "ignore": [],
    "episodes": EPISODES,
}
"""Default options of a data set: see `DataOptions`."""
BEFORE = {"metric": "accuracy", "task": "classification", "kind": "image", "folds": 0}
"""What the record of a run of version 1 does not say, where it is not the default of today."""


@dataclass(frozen=True)
class SourceOptions:
    """Options on reading the source of a run's data set. What is None is as in the run, or in `DEFAULTS`."""

    size: int | None = None
    """pixels per side to which images are resized"""
    task: str | None = None
    """kind of task; None: inferred from the targets"""
    target: str | Sequence[str] | None = None
    """columns of targets; None: of images and series, all but file and split"""
    kind: DataKind | None = None
    """kind of data; None: by the data"""
    series: str | None = None
    """column of a table that names the series of a row; see `ripieno.data.long_table`"""
    time: str | None = None
    """column of times of a table of series"""
    value: str | Sequence[str] | None = None
    """columns of the values of a table of series, one a channel"""
    drop: str | Sequence[str] | None = None
    """columns of a table that are left out"""
    column: Mapping[str, ColumnKind] | None = None
    """kinds of columns of a table, in place of the inferred ones"""
    split_by: str | None = None
    """column of a table by whose order or groups its rows are split"""
    ignore: str | int | Sequence[str | int] | None = None
    """values and classes of masks whose pixels are ignored, besides 255"""


@dataclass(frozen=True)
class DataOptions(SourceOptions):
    """Options of a run's data set. What is None is as in the run, or in `DEFAULTS`."""

    split: Sequence[float] | None = None
    """shares of train, validation and test"""
    seed: int | None = None
    metric: str | None = None
    """score to show, one of the task's; trials are ranked by its loss"""
    skip_bad: bool | None = None
    """skip broken and missing images and count them"""
    folds: Folds | None = None
    """number of folds in place of a validation split, 0 for none, `auto` by the number of samples; None: as in the run,
    else `auto`"""
    leave_out: str | Path | None = None
    """list of samples that are left out of training and validation: see `ripieno.data.leave_out`"""
    episodes: int | None = None
    """of an environment: the number of those that validate a policy, and of those that test it"""


def prepare(
    data: DataSource | None,
    library: Library,
    wanted: DataOptions | None = None,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
    for_training: bool = True,
) -> Dataset:
    """Return the run's memory-mapped data set; make it from `data` unless the run has it already.

    The training split may lack classes where it is not `for_training`, as for networks that were trained elsewhere.
    Moved or copied data count as the same data; `data` is not needed once the run has its own copy. Raises SearchError,
    with both values, when the run was made from other data or with other options; DataError when there are no data;
    RipienoError when another process is making the data set.
    """
    requested = {name: value for name, value in vars(wanted or DataOptions()).items() if value is not None}
    if "split" in requested:
        requested["split"] = list(requested["split"])
    for name in ("target", "value", "drop"):
        if name in requested:
            requested[name] = list(names_of(requested[name]))
    if "ignore" in requested:
        requested["ignore"] = list(ignored_values(requested["ignore"]))
    if "column" in requested:
        requested["column"] = dict(requested["column"])
    if requested.get("folds") == "auto":
        del requested["folds"]  # as in the run
    listed = None
    if "leave_out" in requested:
        listed = read_leave_out(requested["leave_out"])
        requested["leave_out"] = str(listed)  # what it lists, wherever the file is
    record = library.dataset_path / "source.json"
    if record.exists():
        stored = files.read_json(record, dict[str, Any])
        _check_options(library, DEFAULTS | BEFORE | stored, requested)
        dataset = open_dataset(library.dataset_path)
        if dataset.environment or is_environment(data):
            check_environment(dataset, data, library.path)
        elif data is not None:
            report = functools.partial(progress, "comparing the data with the run's")
            _check_source(library, data, stored, report, notes)
        if for_training:
            check_trainable(dataset, f"the data set {library.dataset_path}")
        return dataset
    if data is None:
        raise DataError(f"{library.path} holds no data: give some, as in `ripieno tune images --run {library.path}`")
    if isinstance(data, str | Path) and Path(data).resolve() == library.path.resolve():
        raise DataError(f"{library.path} holds both the data and the run: give another folder for the run with --run")
    options = DEFAULTS | requested
    environment = find_environment(data, requested)
    if environment is not None:
        data = environment_dataset(environment, options["seed"], options["episodes"], (environment,))
    else:
        del options["episodes"]
    with _dataset_lock(library):
        report = functools.partial(progress, "reading the data")
        dataset = load_dataset(
            data,
            **{name: value for name, value in options.items() if name != "episodes"} | {"leave_out": listed},
            progress=report,
            notes=notes,
            folder=library.dataset_path,
            for_training=for_training,
        )
        check_named(dataset, environment)
        digest = fingerprint(data, progress=functools.partial(progress, "computing the data's fingerprint"))
        source = shown(Path(data).resolve()) if isinstance(data, str | Path) else environment or digest.size
        # as inferred, so that the same may be given later
        options |= {
            "metric": dataset.task.metric,
            "task": dataset.task.kind,
            "kind": dataset.kind,
            "folds": dataset.fold_count,
        }
        if notes is not None:
            notes.append(describe(dataset))
        files.write_json(record, {"source": source, **options, "fingerprint": digest})
    return dataset


def describe(dataset: Dataset) -> str:
    """Return one line on a data set: its kind, its task and the samples of each split."""
    task, noun = dataset.task, DATA_KINDS[dataset.kind].noun
    if dataset.environment:
        shape = " x ".join(map(str, dataset.input.shape))
        actions = f"in {len(task.low)} dimension{'s' * (len(task.low) > 1)}" if task.low else f"of {len(task.names)}"
        counts = ", ".join(f"{len(dataset.rows(split)):,} {split}" for split in SPLITS[1:])
        return f"{dataset.name}: observations of {shape}, an action {actions} a step; episodes: {counts}"
    splits = [split for split in SPLITS if split != "valid" or dataset.folds is None]
    counts = ", ".join(f"{len(dataset.rows(split)):,} {split}" for split in splits)
    if dataset.folds is not None:
        counts += f"; validation: {validation_words(dataset.fold_count)}"
    shape = " x ".join(map(str, dataset.input.shape))
    if dataset.columns:
        shape = f"{len(dataset.columns):,} columns"
    of = f"{len(task.names)} {kind_of(task).names_title}" if len(task.names) > 1 else task.names[0]
    return f"{dataset.name}: {len(dataset.inputs):,} {noun} of {shape}, {task.kind} of {of}; {counts}"


def kept_seed(library: Library) -> int | None:
    """Return the seed of the run's split; None when ripieno did not make the run's data set."""
    record = library.dataset_path / "source.json"
    return files.read_json(record, dict[str, Any]).get("seed") if record.exists() else None


def _check_options(library: Library, stored: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    differing = [name for name in requested if stored[name] != requested[name]]
    if differing:
        old, new = (" and ".join(f"{n} {_short(v[n])}" for n in differing) for v in (stored, requested))
        advice = f"leave {' and '.join(differing)} out to resume, or use another folder with --run"
        raise SearchError(f"{library.path} holds a data set made with {old}, not with {new}: {advice}")


def _check_source(
    library: Library,
    data: DataSource,
    stored: Mapping[str, Any],
    progress: Callable[[int, int], None],
    notes: list[str] | None,
) -> None:
    """Raise SearchError unless the run's data set was made from `data`, at any path."""
    source, advice = stored.get("source"), f"leave the data out to use the run's own copy (--run {library.path})"
    label, moved = f"the {type(data).__name__} given", ""
    if isinstance(data, str | Path):
        path, label = Path(data), shown(Path(data))
        moved = "" if shown(path.resolve()) == source else f" of {source}"
        if path.resolve() in (library.path.resolve(), library.dataset_path.resolve()):
            return  # the run's own
        if not path.exists() and moved:
            raise DataError(f"{label} does not exist, and {library.path} was made from {source}: {advice}")
        if not path.exists():
            if notes is not None:
                notes.append(f"{label} no longer exists: the search uses the run's own copy of the data")
            return
    elif isinstance(data, Dataset) and data.path is not None and data.path.resolve() == library.dataset_path.resolve():
        return
    if "fingerprint" not in stored:  # a record from before the first version holds at most a path
        if isinstance(data, str | Path) and not moved:
            return
        raise SearchError(f"{library.path} has no fingerprint of {source} to compare {label} with: {advice}")
    before = Fingerprint(**stored["fingerprint"])
    now = fingerprint(data, before, progress)
    if now.digest != before.digest:
        problem = f"{label} holds other data ({now}) than {library.path} was made from ({before}{moved})"
        raise SearchError(f"{problem}: {advice}, or use another folder for another run")


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ",".join(f"{name}={part}" for name, part in value.items()) or "none"
    return "none" if value is None else str(value)


@contextmanager
def _dataset_lock(library: Library) -> Iterator[None]:
    """Lock the run while its data set is made, since two processes would mix theirs; remove the folder on bad data."""
    lock = library.path / "lock"
    try:
        with files.locked(lock, "another search"):
            yield
    except DataError:
        with suppress(OSError):
            lock.unlink()
            library.path.rmdir()
        raise
