"""History of searches: records of runs in a folder, from which another search of the same space may learn."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from ripieno.errors import LibraryError, SearchError
from ripieno.library import Library
from ripieno.library.history import (
    DataSummary,
    History,
    SearchRecord,
    TrialRecord,
    read_record,
    record_name,
)
from ripieno.pipeline.runs import open_run
from ripieno.search.algorithms import find_algorithm
from ripieno.search.settings import Settings, kept_settings
from ripieno.search.space import space_from_plain, space_to_plain
from ripieno.search.warm_start import PastResult, PastSearch, PastTrial
from ripieno.shell_command import command
from ripieno.types import SPLITS, Dataset

VARIABLE = "RIPIENO_HISTORY"
"""Environment variable that names the folder of records."""


def add_history(runs: str | Path | Sequence[str | Path], history: str | Path | None = None) -> list[Path]:
    """Write the records of `runs` to the folder `history` and return their files.

    Without `history` it is the folder that RIPIENO_HISTORY names. A run that was added before is replaced. Raises
    LibraryError for a folder that is no run, SearchError for a run without finished trials, and without a folder.
    """
    folder = find_folder(history)
    records = [record_of_run(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    return [folder.add(record) for record in records]


def list_history(history: str | Path | None = None) -> list[SearchRecord]:
    """Return the records in the folder `history`, by name; a warning names those that cannot be read.

    Raises LibraryError if the folder does not exist, SearchError as `add_history`.
    """
    return existing(find_folder(history)).records()


def forget_history(names: str | Sequence[str], history: str | Path | None = None) -> None:
    """Remove the records called `names` from the folder `history`.

    Raises LibraryError if one does not exist, before any is removed, and SearchError as `add_history`.
    """
    folder, asked = existing(find_folder(history)), [names] if isinstance(names, str) else list(names)
    if unknown := [name for name in asked if name not in folder.names()]:
        folder.remove(unknown[0])  # raises
    for name in dict.fromkeys(asked):
        folder.remove(name)


def find_folder(history: str | Path | None) -> History:
    """Return the folder `history`, or else that of RIPIENO_HISTORY. Raises SearchError without any."""
    found = history or os.environ.get(VARIABLE)
    if not found:
        raise SearchError(f"no folder of records is named: pass --history DIR (history=), or set {VARIABLE}")
    return History(found)


def existing(folder: History) -> History:
    """Return `folder`. Raises LibraryError if it does not exist."""
    if not folder.path.is_dir():
        what = "is not a folder" if folder.path.exists() else "does not exist"
        adding = command("history", "add", "RUN", history=folder.path)
        raise LibraryError(f"history {folder.path} {what}: `{adding}` makes one")
    return folder


def record_of_run(run: str | Path | Library) -> SearchRecord:
    """Return the record of the search of a run, which may still run.

    Raises LibraryError for a folder that is no run, SearchError for a run without finished trials.
    """
    library = open_run(run)
    settings = kept_settings(library.path / "run.json")
    if settings is None or not library.journal_path.exists():
        raise SearchError(f"{library.path} has no search to learn from: its members were imported")
    identity = _identity(library)
    trials = _trials(library, settings)
    if not any(loss is not None for trial in trials for _, loss, _ in trial.results):
        raise SearchError(f"{library.path} has no finished trials to learn from: let its search train some")
    return SearchRecord(
        name=record_name(library.path.resolve().name, identity),
        identity=identity,
        space=space_to_plain(settings.space),
        algorithm=find_algorithm(settings.algorithm).name,
        metric=settings.metric,
        unit=settings.unit,
        epochs=settings.epochs,
        data=_data_summary(library),
        trials=trials,
    )


def _identity(library: Library) -> str:
    """Return digits that no other search has: of the first line of its journal, which holds a random number."""
    with open(library.journal_path, "rb") as stream:
        return hashlib.sha256(stream.readline()).hexdigest()[:32]


def _trials(library: Library, settings: Settings) -> tuple[TrialRecord, ...]:
    from ripieno.search.journal import JobFinished, Journal

    journal = Journal(library.journal_path, settings.space, "random", settings.seed, objectives=settings.objective)
    events = journal.events()
    configurations = [journal.configuration(trial) for trial in range(1 + max((e.trial for e in events), default=-1))]
    found: dict[int, list[tuple[int, float | None, float]]] = {}
    for event in events:
        if isinstance(event, JobFinished):
            found.setdefault(event.trial, []).append((event.stop, event.loss, round(event.seconds, 3)))
    ranges = settings.space.ranges
    return tuple(
        TrialRecord({name: configurations[trial][name] for name in ranges}, tuple(sorted(found[trial], key=_epoch)))
        for trial in sorted(found)
    )


def _epoch(result: tuple[int, float | None, float]) -> int:
    return result[0]


def _data_summary(library: Library) -> DataSummary | None:
    from ripieno.data.dataset import find_dataset

    dataset: Dataset | None = find_dataset(library.dataset_path)
    if dataset is None:
        return None
    samples: dict[str, int] = {split: len(dataset.rows(split)) for split in SPLITS}
    return DataSummary(dataset.kind, dataset.task.kind, samples, dataset.input.shape, dataset.task.output[-1])


def past_search(record: SearchRecord) -> PastSearch:
    """Return the search of a record as searches learn from it. Raises LibraryError if its space is broken."""
    try:
        space = space_from_plain(record.space)
    except SearchError as error:
        raise LibraryError(f"record {record.name} is broken: {error}") from error
    if (least := min((epoch for trial in record.trials for epoch, _, _ in trial.results), default=1)) < 1:
        raise LibraryError(f"record {record.name} is broken: it has a result after {least} epochs")
    trials = (
        PastTrial(trial.values, tuple(PastResult(epoch, loss, seconds) for epoch, loss, seconds in trial.results))
        for trial in record.trials
    )
    return PastSearch(record.name, space, tuple(trials), record.identity)


def read_source(source: str | Path) -> PastSearch:
    """Return the past search of a run's folder or of the file of a record; errors as `record_of_run`."""
    path = Path(source)
    return past_search(read_record(path) if path.suffix == ".jsonl" else record_of_run(path))
