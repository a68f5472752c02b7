"""Folder of recent inputs that a server kept (`serve --keep`), and of the labels that came for them: a data set.

FOLDER/kept.json       task and form of the inputs
FOLDER/NUMBER.npz      a segment: inputs (samples, *shape), ids of their requests, and their places in these; the oldest
                       segments are removed first
FOLDER/labels.jsonl    a line for each label: request, index, target as in `Dataset`
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.samples import UNASSIGNED, Samples
from ripieno.data_kinds import DATA_KINDS, traits_of
from ripieno.errors import DataError, LibraryError
from ripieno.tasks.registry import kind_of
from ripieno.types import DataKind, Input, Task

RECORD, LABELS = "kept.json", "labels.jsonl"


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
    index: int
    target: Any


def is_kept_folder(path: Path) -> bool:
    """Return whether a folder holds samples that a server kept."""
    return (path / RECORD).is_file()


def segments(folder: Path) -> list[Path]:
    """Return the segments of a folder, the oldest first."""
    return sorted(path for path in folder.glob("*.npz") if path.stem.isdigit())


def read_segment(path: Path) -> tuple[NDArray[Any], list[tuple[str, int]]]:
    """Return the inputs of a segment, and the request and place of each. Raises DataError for a broken one."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
            inputs, ids, places = held["inputs"], held["requests"], held["indices"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no segment of kept samples ({error}); remove it") from error
    return inputs, list(zip(map(str, ids.tolist()), map(int, places.tolist()), strict=True))


def read_labels_file(folder: Path) -> Iterator[LabelRecord]:
    """Yield the labels of a folder; a line that a kill cut short is left out."""
    path = folder / LABELS
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield msgspec.json.decode(line, type=LabelRecord)
        except msgspec.DecodeError:
            continue


def read_kept(folder: Path, notes: list[str]) -> Samples:
    """Return the labelled samples of a folder; a note tells how many have no label. Raises DataError for none."""
    try:
        record = files.read_json(folder / RECORD, KeptRecord)
    except LibraryError as error:
        raise DataError(str(error)) from error
    targets = {(label.request, label.index): label.target for label in read_labels_file(folder)}
    inputs: list[NDArray[Any]] = []
    found: list[Any] = []
    every = 0
    for path in segments(folder):
        if not path.exists():  # a server has removed it meanwhile
            continue
        rows, places = read_segment(path)
        every += len(rows)
        labelled = [row for row, place in enumerate(places) if place in targets]
        inputs.append(rows[labelled])
        found += [targets[places[row]] for row in labelled]
    if not found:
        raise DataError(f"{folder} holds {every:,} kept samples and no label of one: send some to /v2/models/M/labels")
    if every > len(found):
        notes.append(f"{folder}: {len(found):,} of {every:,} kept samples have labels; the others are left out")
    kind = kind_of(record.task)
    values = kind.read_targets(np.array(found), record.task, f"{folder / LABELS}: {kind.targets_name}", DataError)
    kind_of_data: DataKind = next((k for k, traits in DATA_KINDS.items() if traits is traits_of(record.input)), "image")
    split = np.full(len(values), UNASSIGNED, np.int8)
    return Samples(folder.name, np.concatenate(inputs), values, split, record.task, kind_of_data)
