"""Run -> labels that an ensemble contradicts on samples that its members were not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.dataset import find_dataset
from ripieno.data.leave_out import file_text
from ripieno.errors import LibraryError, SelectionError
from ripieno.library import Library
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.combined_blocks import combined_blocks
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run, refuse_policies, task_of
from ripieno.reports.suspects import LIST, PAGE, Suspect, Suspects, suspects_csv, suspects_page
from ripieno.shell_command import command
from ripieno.tasks.combiners import member_shares
from ripieno.tasks.contradiction import contradictions
from ripieno.tasks.registry import kind_of
from ripieno.tasks.target_text import target_text
from ripieno.types import Dataset, Ensemble, Ints, Split, Task, ranking_loss


def suspects(
    run: str | Path | Library,
    ensemble: str | None = None,
    *,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> Suspects:
    """List the targets that an ensemble contradicts, on samples that its members were not trained on.

    These are the validation samples, or with folds the training samples, of which there are out-of-fold predictions,
    and those of the test split. Without a name the ensemble is that of the least validation loss. Nothing in the run is
    changed but two files, `suspects.csv` and `suspects.html`; a former list that differs is kept under another name,
    which `notes` says. Raises LibraryError for a run without ensembles, SelectionError for masks.
    """
    library = open_run(run, writing=True, trusted=trusted)
    refuse_policies(task_of(library), "a list of suspects")
    notes = [] if notes is None else notes
    chosen = _ensemble(library, ensemble)
    task = library.member(chosen.members[0]).task
    if kind_of(task).is_pixelwise:
        raise SelectionError(f"suspects are labels of samples, not of pixels: a {task.kind} has none")
    evaluate(library, chosen.members, progress, notes=notes)
    dataset = find_dataset(library.dataset_path)
    found: list[Suspect] = []
    samples: dict[str, int] = {}
    has_rows = dataset is not None
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        if not all(library.has_predictions(member, split) for member in chosen.members):
            continue
        rows = _rows(dataset, split, library.targets(split))
        has_rows = has_rows and rows is not None
        name = "out-of-fold" if split == "valid" and dataset is not None and dataset.folds is not None else split
        own = _of_split(library, chosen, split, task, name, dataset if rows is not None else None, rows)
        samples[name] = len(library.targets(split))
        found += own
    is_value = kind_of(task).activation == "identity"
    found.sort(key=lambda one: -one.score if is_value else one.score)
    result = Suspects(chosen.name, "scaled_residual" if is_value else "probability", tuple(found), samples, has_rows)
    _write_list(library.path / LIST, suspects_csv(result), notes)
    leave_out = command("tune", "DATA", run="NEW-RUN", leave_out=library.path / LIST)
    page = suspects_page(result, library.path.resolve().name, dataset, leave_out)
    files.write_bytes(library.path / PAGE, page)
    return result


def _ensemble(library: Library, name: str | None) -> Ensemble:
    if name is not None:
        return library.ensemble(name)
    found = library.ensembles()
    if not found:
        remedy = f"select one with `{command('select', library.path, budget='B')}`"
        raise LibraryError(f"{library.path} has no ensemble to judge labels by: {remedy}")
    return min(found, key=lambda one: math.inf if (loss := ranking_loss(one.losses)) is None else loss)


def _rows(dataset: Dataset | None, split: Split, targets: NDArray[Any]) -> Ints | None:
    """Return the rows of the data set that the predictions of `split` are of; None where they are of other samples."""
    rows = None if dataset is None else dataset.rows(split)
    if dataset is None or rows is None or len(rows) != len(targets):
        return None
    return rows if np.array_equal(dataset.targets[rows], targets) else None


def _of_split(
    library: Library,
    ensemble: Ensemble,
    split: Split,
    task: Task,
    name: str,
    dataset: Dataset | None,
    rows: Ints | None,
) -> list[Suspect]:
    """Return the suspects of one split, called `name`."""
    targets, kind, shares = np.asarray(library.targets(split)), kind_of(task), member_shares(ensemble)
    is_value = kind.activation == "identity"
    combined, spreads = [], []
    for block in combined_blocks(library, ensemble, split):
        combined.append(block.combined)
        if is_value:
            spreads.append(kind.spread(block.members, block.combined, shares))
    spread = np.concatenate(spreads) if spreads else None
    wrong = contradictions(np.concatenate(combined), targets, task, ensemble.thresholds, spread)
    suspects = []
    for place, doubt, answer in zip(wrong.samples.tolist(), wrong.doubt.tolist(), wrong.suggested, strict=True):
        row = place if rows is None else int(rows[place])
        file = "" if dataset is None or dataset.files is None else file_text(dataset.files[row])
        words = target_text(targets[place], task), target_text(answer, task)
        suspects.append(Suspect(file, row, name, *words, doubt if is_value else 1 - doubt))
    return suspects


def _write_list(path: Path, content: bytes, notes: list[str]) -> None:
    """Write the list; keep one of that name that differs, which a person may have edited."""
    if path.exists() and path.read_bytes() != content:
        number = 1
        while (kept := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
            number += 1
        path.rename(kept)
        notes.append(f"the former list is kept as {kept}")
    files.write_bytes(path, content)
