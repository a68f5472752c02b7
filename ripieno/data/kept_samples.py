"""Folder of recent inputs that a server kept (`serve --keep`), and of the labels that came for them: a data set.

FOLDER/kept.json       task and form of the inputs
FOLDER/NUMBER.npz      a segment: inputs (samples, *shape), ids of their requests, their places in these, and what was
                       answered; the oldest segments are removed first
FOLDER/labels.jsonl    a line for each label: request, index, target as in `Dataset`, or names
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.samples import UNASSIGNED, Samples
from ripieno.data_kinds import kind_by_axes
from ripieno.errors import DataError, LibraryError
from ripieno.tasks.labels import shown
from ripieno.tasks.registry import kind_of
from ripieno.types import Input, Task

RECORD, LABELS = "kept.json", "labels.jsonl"
SamplePlace = tuple[str, int]
"""Id of a request, and the index of a sample in it."""


@dataclass(frozen=True)
class KeptRecord:
    """Content of `kept.json`."""

    name: str
    """of the model"""
    task: Task
    input: Input


class LabelRecord(msgspec.Struct):
    """A line of `labels.jsonl`."""

    request: str
    target: Any
    index: int = 0


def is_kept_folder(path: Path) -> bool:
    """Return whether a folder holds samples that a server kept."""
    return (path / RECORD).is_file()


def segments(folder: Path) -> list[Path]:
    """Return the segments of a folder, the oldest first."""
    return sorted(path for path in folder.glob("*.npz") if path.stem.isdigit())


def kept_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are read."""
    return [folder / RECORD, *segments(folder), *[path for path in [folder / LABELS] if path.exists()]]


def read_segment(path: Path, *names: str) -> list[NDArray[Any]] | None:
    """Return arrays of a segment by their names; None where the server has removed it, or it has no such arrays.

    Raises DataError for a broken one.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as held:
            return [held[name] for name in names] if set(names) <= set(held.files) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no segment of kept samples ({error}); remove it") from error


def places_of(requests: NDArray[Any], indices: NDArray[Any]) -> list[SamplePlace]:
    """Return the place of each sample of a segment."""
    return list(zip(map(str, requests.tolist()), map(int, indices.tolist()), strict=True))


def read_labels_file(folder: Path) -> tuple[list[LabelRecord], int]:
    """Return the labels of a folder, and the number of lines that are none, such as one that a kill cut short."""
    path, found, wrong = folder / LABELS, [], 0
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            found.append(msgspec.json.decode(line, type=LabelRecord))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            wrong += bool(line.strip())
    return found, wrong


def numbers_of(target: Any, task: Task) -> Any:
    """Return a target with numbers for the names of classes or labels. Raises DataError for a name of none."""
    kind = kind_of(task).name
    if kind == "classification" and isinstance(target, str):
        return _index(target, task, "class")
    if kind == "multilabel" and isinstance(target, list) and all(isinstance(value, str) for value in target):
        held = {_index(value, task, "label") for value in target}
        return [int(index in held) for index in range(len(task.names))]
    if kind == "regression" and isinstance(target, int | float) and not isinstance(target, bool):
        return [target]
    return target


def read_target(target: Any, task: Task) -> Any:
    """Return a target of `task` in plain numbers. Raises DataError where it is none."""
    try:
        given = np.asarray([numbers_of(target, task)])
        return kind_of(task).read_targets(given, task, "target", DataError)[0].tolist()
    except (DataError, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"target {target!r:.80} does not fit the model: {error}") from error


def _index(name: str, task: Task, noun: str) -> int:
    if name not in task.names:
        raise DataError(f"{name[:80]!r} is no {noun} of the model: {shown(task.names)}")
    return task.names.index(name)


def read_kept(folder: Path, notes: list[str]) -> Samples:
    """Return the labelled samples of a folder; notes tell which samples and labels are left out.

    Of several labels of a sample the last one counts. Raises DataError for no labelled sample, and for a target that is
    none of the task.
    """
    try:
        record = files.read_json(folder / RECORD, KeptRecord)
    except LibraryError as error:
        raise DataError(str(error)) from error
    labels, wrong = read_labels_file(folder)
    if wrong:
        notes.append(f"{folder / LABELS}: {wrong:,} lines are no labels, and left out")
    targets = {(label.request, label.index): label.target for label in labels}
    inputs: dict[SamplePlace, NDArray[Any]] = {}
    unlabelled, unclear = 0, set()
    for path in segments(folder):
        held = read_segment(path, "inputs", "requests", "indices")
        if held is None:
            continue
        rows = held[0]
        for row, place in enumerate(places_of(held[1], held[2])):
            if place not in targets:
                unlabelled += 1
            elif place not in inputs:
                inputs[place] = rows[row].copy()  # the other rows of the segment are not held
            elif inputs[place].tobytes() != rows[row].tobytes():
                unclear.add(place)
    for place in unclear:
        del inputs[place]
    if unclear:
        held_twice = f"{folder}: {len(unclear):,} labelled samples are left out"
        notes.append(f"{held_twice}: requests with other inputs had their id, too")
    if unclear and not inputs:
        raise DataError(f"{folder}: requests with several inputs had one id; give each an x-request-id of its own")
    if not inputs:
        raise DataError(
            f"{folder} holds {unlabelled:,} kept samples and no label of one: send some to /v2/models/M/labels"
        )
    if unlabelled:
        held_all = f"{len(inputs):,} of {len(inputs) + len(unclear) + unlabelled:,} kept samples have labels"
        notes.append(f"{folder}: {held_all}; the others are left out")
    values = _read_targets([targets[place] for place in inputs], record.task, folder / LABELS)
    kind = kind_by_axes(record.input.shape)
    split = np.full(len(values), UNASSIGNED, np.int8)
    found = np.stack(list(inputs.values()))
    return Samples(folder.name, found, values, split, record.task, kind, columns=record.input.columns)


def _read_targets(targets: Sequence[Any], task: Task, path: Path) -> NDArray[Any]:
    """Return targets as in `Dataset`. Raises DataError that names `path` and the first one that is none of the task."""
    kind = kind_of(task)
    try:
        given = np.array([numbers_of(target, task) for target in targets])
        return kind.read_targets(given, task, str(path), DataError)
    except (DataError, ValueError, TypeError, OverflowError) as error:
        for target in targets:  # whose error names it
            try:
                read_target(target, task)
            except DataError as own:
                raise DataError(f"{path}: {own}") from own
        raise DataError(f"{path}: {error}") from error
